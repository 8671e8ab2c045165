//! Recorded actions, judged again: for `explain`, and for what folded repeats count after the scope has changed.

use crate::config::Declaration;
use crate::control::report::Explanation;
use crate::entry::{Attribution, Draft, Entry, Verdict};
use crate::scope::recorded::{Reading, Recorded, is_judged_by_redacted};

/// Gives a recorded action the verdict of the declaration as it is now.
pub(super) fn judge_again(draft: &mut Draft, declaration: Option<&Declaration>) {
    let Reading::Action(recorded) = Reading::of(draft) else { return };
    let scope = declaration.and_then(|declaration| declaration.scope.as_deref());
    let judgement = recorded.judge(scope);
    draft.verdict = judgement.verdict;
    draft.reason = judgement.reason;
}

/// The way to an entry's verdict, by the declarations as they are now. Says which values had been redacted.
pub(super) fn explain(entry: &Entry, declaration: Option<&Declaration>) -> Explanation {
    let mut explanation = explain_what_is_left(&entry.draft, declaration);
    if !entry.draft.redacted.is_empty() {
        let names = entry.draft.redacted.join(", ");
        explanation.tried.push(format!(
            "{names}: the value was redacted; the verdict was on what it had been, this is on what is left of it"
        ));
    }
    explanation
}

fn explain_what_is_left(draft: &Draft, declaration: Option<&Declaration>) -> Explanation {
    let attribution = draft.attribution.map(|attribution| vec![attributed(draft, attribution)]).unwrap_or_default();
    let Some(recorded) = Recorded::of(draft) else {
        let tried = vec![format!("{} is recorded, and judged by no grant", draft.event)];
        return Explanation { attribution, tried, would_allow: Vec::new() };
    };
    let Some(scope) = declaration.and_then(|declaration| declaration.scope.as_deref()) else {
        let agent = draft.agent.as_deref().unwrap_or("nobody");
        let tried = vec![format!("'{agent}' declares no [scope], so nothing that it does is judged")];
        return Explanation { attribution, tried, would_allow: Vec::new() };
    };
    let explained = recorded.ask(|action| scope.explain(action));
    let mut tried: Vec<String> = explained
        .tried
        .iter()
        .map(|tried| {
            let outcome = if tried.covers { "covers it" } else { "does not cover it" };
            format!("{} \"{}\" ({}): {outcome}", tried.list, tried.text, tried.origin)
        })
        .collect();
    if recorded.failed() && draft.verdict == Verdict::None {
        tried.push("it failed for want of the file, and no deny matches: such searches are not judged".to_owned());
    }
    // By what is left of a value nobody can tell what it would be now, or what would allow it.
    let redacted = is_judged_by_redacted(draft);
    if explained.judgement.verdict != draft.verdict && !recorded.failed() && !redacted {
        let now = explained.judgement.verdict.as_str();
        tried.push(format!("the declarations have changed since: as they are now it would be {now}"));
    }
    let would_allow = explained.would_allow.into_iter().filter(|_| !redacted).collect();
    Explanation { attribution, tried, would_allow }
}

fn attributed(draft: &Draft, attribution: Attribution) -> String {
    use crate::entry::Method;
    let agent = draft.agent.as_deref().unwrap_or("nobody");
    let how = match attribution.method {
        Method::Run => "it is the process that `bailiwick run` started",
        Method::Executable => "its executable is one that the declaration names",
        Method::Script => "it runs the script that the declaration names",
        Method::Argv => "its command line is one that the declaration describes",
        Method::Environment => "its environment carries the marker that the declaration names",
        Method::User => "it runs as the user that the declaration names",
        Method::Cgroup => "it runs in the control group that the declaration names",
        Method::Unit => "it runs in the unit that the declaration names",
        Method::Inherited => "it descends from the first process of the session, by the kernel's own account",
    };
    format!("'{agent}', since {how}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

    use super::explain;
    use crate::config::Config;
    use crate::entry::{Draft, Entry, Timestamp, Verdict};
    use crate::redact::{RedactSettings, Redactor};

    #[test]
    fn an_explanation_says_that_the_value_was_redacted_and_proposes_no_grant_for_what_is_left() {
        let config = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(config.path().join("agents.d")).unwrap();
        let declaration =
            "[agent]\nname = \"shop\"\nowner = \"o\"\npurpose = \"p\"\n[scope.files]\nread = [\"/srv/**\"]\n";
        std::fs::write(config.path().join("agents.d/shop.toml"), declaration).unwrap();
        let config = Config::load(Some(config.path())).unwrap();
        let mut draft = Draft::of_host(Timestamp(0), "file.open");
        draft.agent = Some("shop".to_owned());
        draft.verdict = Verdict::OutOfScope;
        draft.attributes.insert("file.path".to_owned(), "/tmp/ghp_16C7e42F292c6912E7710c838347Ae178B4a".into());
        draft.attributes.insert("bailiwick.file.access".to_owned(), "r".into());
        Redactor::new(RedactSettings::default()).unwrap().redact(&mut draft);
        let explanation =
            explain(&Entry { uid: String::new(), seq: 1, draft, chain: String::new() }, config.declaration("shop"));
        let said = explanation.tried.iter().any(|tried| tried.starts_with("file.path: the value was redacted"));
        assert!(said && explanation.would_allow.is_empty(), "{explanation:?}");
    }
}
