//! Recorded actions, judged again: for `explain`, and for what folded repeats count after the scope has changed.

use crate::config::Config;
use crate::control::report::Explanation;
use crate::entry::{Attribution, Draft, Entry, Verdict};
use crate::scope::effective::Effective;
use crate::scope::recorded::{Reading, Recorded, is_judged_by_redacted};

/// Gives a recorded action the verdict of the declarations as they are now.
pub(super) fn judge_again(draft: &mut Draft, config: &Config) {
    let Reading::Action(recorded) = Reading::of(draft) else { return };
    let judgement = recorded.judge(&config.effective_of(draft));
    draft.verdict = judgement.verdict;
    draft.reason = judgement.reason;
}

/// The way to an entry's verdict, by the declarations as they are now. Says which values had been redacted.
pub(super) fn explain(entry: &Entry, config: &Config) -> Explanation {
    let mut explanation = explain_what_is_left(&entry.draft, config);
    if !entry.draft.redacted.is_empty() {
        let names = entry.draft.redacted.join(", ");
        explanation.tried.push(format!(
            "{names}: the value was redacted; the verdict was on what it had been, this is on what is left of it"
        ));
    }
    explanation
}

fn explain_what_is_left(draft: &Draft, config: &Config) -> Explanation {
    let mut attribution: Vec<String> = draft.attribution.iter().map(|&how| attributed(draft, how)).collect();
    let agent = draft.agent.as_deref().unwrap_or("nobody");
    let effective = config.effective_of(draft);
    attribution.extend(bound_by(draft, &effective));
    let Some(recorded) = Recorded::of(draft) else {
        let tried = vec![format!("{} is recorded, and judged by no grant", draft.event)];
        return Explanation { attribution, tried, would_allow: Vec::new() };
    };
    if effective.is_unscoped() {
        let tried = vec![format!("'{agent}' declares no [scope], so nothing that it does is judged")];
        return Explanation { attribution, tried, would_allow: Vec::new() };
    }
    let explained = recorded.ask(|action| effective.explain(action));
    let now = recorded.ask(|action| effective.judge(action, None)).verdict;
    let mut tried: Vec<String> = Vec::new();
    let mut would_allow: Vec<String> = Vec::new();
    for (layer, explained) in explained {
        let whose = if effective.is_delegators(layer) { format!("of '{}': ", layer.agent) } else { String::new() };
        tried.extend(explained.tried.iter().map(|tried| {
            let outcome = if tried.covers { "covers it" } else { "does not cover it" };
            format!("{whose}{} \"{}\" ({}): {outcome}", tried.list, tried.text, tried.origin)
        }));
        would_allow.extend(explained.would_allow.map(|line| format!("{whose}{line}")));
    }
    if recorded.failed() && draft.verdict == Verdict::None {
        tried.push("it failed for want of the file, and no deny matches: such searches are not judged".to_owned());
    }
    // By what is left of a value nobody can tell what it would be now, or what would allow it.
    let redacted = is_judged_by_redacted(draft);
    if now != draft.verdict && !recorded.failed() && !redacted {
        tried.push(format!("the declarations have changed since: as they are now it would be {}", now.as_str()));
    }
    if redacted {
        would_allow.clear();
    }
    Explanation { attribution, tried, would_allow }
}

/// Whose scopes bind a delegate beside its own, and whose do not.
fn bound_by(draft: &Draft, effective: &Effective<'_>) -> Option<String> {
    let outermost = draft.delegation.first()?;
    let binding: Vec<String> = effective
        .layers()
        .filter(|layer| effective.is_delegators(*layer))
        .map(|layer| format!("'{}'", layer.agent))
        .collect();
    let chain = draft.delegation.iter().map(|link| link.agent.as_str()).chain(draft.agent.as_deref());
    let chain = chain.collect::<Vec<_>>().join(" > ");
    Some(if binding.is_empty() {
        format!(
            "it acts for '{}' ({chain}), by its own scope alone: no scope of a delegator limits it",
            outermost.agent
        )
    } else {
        format!("it acts for '{}' ({chain}), within the scope of {} as well", outermost.agent, binding.join(" and of "))
    })
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
        let explanation = explain(&Entry { uid: String::new(), seq: 1, draft, chain: String::new() }, &config);
        let said = explanation.tried.iter().any(|tried| tried.starts_with("file.path: the value was redacted"));
        assert!(said && explanation.would_allow.is_empty(), "{explanation:?}");
    }
}
