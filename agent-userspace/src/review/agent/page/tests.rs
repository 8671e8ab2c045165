use super::page;
use crate::control::testing::time_of;
use crate::review::agent::grants::Uses;
use crate::review::agent::report::{
    Completeness, Day, DelegationUse, GrantItem, NotGranted, Review, UsedGrant, UsedThing,
};

const HOSTILE: &str = "<script>alert(1)</script>\"'&\u{202e}\u{1b}[2J";

fn uses(count: u64) -> Uses {
    let time = (count > 0).then(|| time_of(count));
    Uses { count, first: time, last: time, uid: time.map(|_| "5f3a91c2-7".to_owned()) }
}

fn review() -> Review {
    let grant = |text: &str| GrantItem {
        grant: "files.read".to_owned(),
        text: text.to_owned(),
        file: "/etc/bailiwick/agents.d/demo.toml".to_owned(),
        line: 9,
    };
    let day = |day: &str, in_scope, out_of_scope, findings| Day {
        day: day.to_owned(),
        in_scope,
        out_of_scope,
        not_judged: 5,
        findings,
    };
    let delegation =
        |from: &str, to: &str, count| DelegationUse { from: from.to_owned(), to: to.to_owned(), uses: uses(count) };
    Review {
        agent: "demo".to_owned(),
        owner: Some(HOSTILE.to_owned()),
        purpose: None,
        declared_in: Some("/etc/bailiwick/agents.d/demo.toml".to_owned()),
        declaration_sha256: None,
        scoped: true,
        from: Some(time_of(1)),
        to: Some(time_of(9)),
        sessions: Vec::new(),
        sessions_left_out: 3,
        actions: 12_345,
        granted_unused: vec![grant("/opt/unused/**")],
        used_not_granted: vec![NotGranted {
            thing: UsedThing { event: "file.open".to_owned(), what: HOSTILE.to_owned(), uses: uses(2) },
            reason: Some(HOSTILE.to_owned()),
            delegator: Some("outer".to_owned()),
        }],
        used_not_granted_left_out: 0,
        last_used: vec![
            UsedGrant { grant: grant("/srv/**"), uses: uses(1_000) },
            UsedGrant { grant: grant("/opt/unused/**"), uses: uses(0) },
        ],
        privileges: Vec::new(),
        resources: Vec::new(),
        credentials: Vec::new(),
        delegations: vec![
            delegation("outer", "demo", 1),
            delegation("demo", "deputy", 2),
            delegation("demo", "demo", 1),
        ],
        findings: Vec::new(),
        activity: vec![day("2026-01-30", 900, 1, 0), day("2026-02-02", 10, 0, 2)],
        completeness: Completeness { entries: 9, blind_spots: vec![HOSTILE.to_owned()], ..Completeness::default() },
        last_review: None,
        due: None,
        overdue: false,
        diff: Some(format!("-read = [\"{HOSTILE}\"]\n+read = []\n")),
    }
}

#[test]
fn no_string_of_an_agent_is_markup_and_nothing_comes_from_elsewhere() {
    let page = page(&review(), time_of(10));
    assert!(!page.contains("<script") && !page.contains('\u{202e}') && !page.contains('\u{1b}'), "{page}");
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&amp;"));
    assert!(page.contains("content=\"default-src 'none'; style-src 'unsafe-inline'\""));
    for elsewhere in ["http:", "https:", "src=", "@import", "url(h"] {
        assert!(!page.contains(elsewhere), "{elsewhere}");
    }
}

#[test]
fn every_day_from_the_first_to_the_last_has_its_place() {
    let page = page(&review(), time_of(10));
    for day in ["2026-01-30", "2026-01-31", "2026-02-01", "2026-02-02"] {
        assert!(page.contains(&format!("<title>{day}: ")), "{day}");
    }
    assert!(page.contains("<title>2026-01-30: 900 in scope, 5 not judged, 1 out of scope, 0 findings</title>"));
    assert_eq!(page.matches("<circle class=\"found\"").count(), 1);
}

#[test]
fn each_agent_is_drawn_once_and_each_delegation_too_be_it_to_itself() {
    let page = page(&review(), time_of(10));
    assert_eq!(page.matches("<g class=\"agent").count(), 3);
    assert_eq!(page.matches("<g class=\"agent self\"").count(), 1);
    assert_eq!(page.matches("class=\"edge\"").count(), 3);
}

#[test]
fn a_grant_without_a_use_is_drawn_and_says_so() {
    let page = page(&review(), time_of(10));
    assert!(page.contains("<li class=\"never\"><span class=\"name\"><em>files.read</em> <code>/opt/unused/**</code>"));
    assert!(page.contains("never used"));
    assert!(page.contains("<span class=\"gone\">-read = ["));
}

#[test]
fn one_that_did_nothing_has_a_page_too() {
    let empty = Review {
        delegations: Vec::new(),
        activity: Vec::new(),
        last_used: Vec::new(),
        granted_unused: Vec::new(),
        used_not_granted: Vec::new(),
        from: None,
        to: None,
        diff: Some(String::new()),
        ..review()
    };
    let page = page(&empty, time_of(10));
    for said in ["Nothing was done.", "Every grant was used.", "It delegated to nobody", "Nothing can be taken away"] {
        assert!(page.contains(said), "{said}");
    }
}
