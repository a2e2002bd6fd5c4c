//! Policy files: the built-in ones, the schema, and what operators may hand in.

use std::collections::BTreeSet;
use std::str::FromStr;

use cedar_policy::{EntityUid, Schema};

use super::super::load::{self, Source};
use super::super::vocabulary::{Place, SCHEMA, Vocabulary};
use super::*;

#[test]
fn the_builtin_policies_are_sound() {
    Schema::from_cedarschema_str(SCHEMA).map(|_| ()).unwrap_or_else(|error| panic!("{error:?}"));
    let vocabulary = Vocabulary::get().expect("the schema is sound");
    let mut all = Vec::new();
    for (name, text) in PolicySet::builtin_files() {
        let source = Source { name, text, builtin: true };
        let read = load::read(source).unwrap_or_else(|problems| panic!("{problems:#?}"));
        let (problems, doubts) = load::validate(vocabulary, source, &read);
        assert_eq!((problems, doubts), (vec![], vec![]), "{name}");
        all.extend(read);
    }
    let ids: BTreeSet<_> = all.iter().map(|loaded| loaded.info.id.clone()).collect();
    assert_eq!(ids.len(), all.len(), "two built-in policies share an id");
    for loaded in &all {
        assert!(!loaded.unnamed && loaded.info.description.ends_with('.'), "{:?}", loaded.info);
    }
    assert_eq!(PolicySet::builtin().policies().count(), all.len());
}

#[test]
fn every_builtin_file_is_in_force() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/policy/defaults");
    let there: BTreeSet<String> = std::fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("it can be listed").file_name().to_string_lossy().into_owned())
        .collect();
    let used: BTreeSet<String> = PolicySet::builtin_files().iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(there, used);
}

#[test]
fn the_schema_has_just_the_actions_that_there_are() {
    let schema = Vocabulary::get().expect("the schema is sound").schema();
    let word = |word: &str| EntityUid::from_str(&format!("Action::\"{word}\"")).expect("a name");
    let listed: BTreeSet<String> = schema.actions().map(|uid| uid.id().unescaped().to_owned()).collect();
    let words = Action::ALL.iter().map(|action| action.as_str()).chain(Group::ALL.map(Group::as_str));
    assert_eq!(listed, words.map(str::to_owned).collect::<BTreeSet<_>>());

    let entities = schema.action_entities().expect("actions form no circle");
    let places =
        [("Installation", Place::Installation), ("Project", Place::Project), ("Environment", Place::Environment)];
    for action in Action::ALL {
        let uid = word(action.as_str());
        let groups: Vec<_> = entities.ancestors(&uid).expect("it is known").cloned().collect();
        assert_eq!(groups, [word(action.group().as_str())], "group of {action}");
        let resources: BTreeSet<String> =
            schema.resources_for_action(&uid).expect("it is known").map(ToString::to_string).collect();
        let known = places.iter().filter(|(_, place)| place.knows(*action)).map(|(name, _)| (*name).to_owned());
        assert_eq!(resources, known.collect::<BTreeSet<_>>(), "resources of {action}");
        assert_eq!(schema.principals_for_action(&uid).expect("it is known").count(), PrincipalKind::ALL.len());
    }
}

#[test]
fn the_schema_knows_what_decisions_are_made_from() {
    let vocabulary = Vocabulary::get().expect("the schema is sound");
    let schema = vocabulary.schema();
    for kind in PrincipalKind::ALL {
        let request = by(kind, &Role::ALL, Action::Evaluate, Tier::Testing);
        let (question, entities) = vocabulary.question(&request).expect("it can be asked");
        let (principal, action) = (question.principal().expect("known"), question.action().expect("known"));
        let resource = question.resource().expect("known");
        let context = question.context().expect("known").clone();
        cedar_policy::Request::new(principal.clone(), action.clone(), resource.clone(), context, Some(schema))
            .unwrap_or_else(|error| panic!("{kind:?}: {error:?}"));
        cedar_policy::Entities::from_entities(entities.iter().cloned(), Some(schema))
            .unwrap_or_else(|error| panic!("{kind:?}: {error:?}"));
        assert!(entities.len() <= 4, "only what the request is about is loaded");
    }
}

#[test]
fn a_file_that_does_not_parse_is_refused_with_its_place() {
    let text = "// mine\npermit (principal, action, resource)\nwhen { context.factorFresh & true };\n";
    let problems = PolicySet::with(&files(&[("own.cedar", text)])).expect_err("it is broken");
    assert_eq!((problems[0].file.as_str(), problems[0].line), ("own.cedar", 3), "{problems:?}");
    assert!(problems[0].column > 1 && problems[0].to_string().starts_with("own.cedar:3:"), "{problems:?}");
}

#[test]
fn words_that_the_schema_lacks_are_refused_with_their_place() {
    let cases = [
        ("permit (principal, action, resource in Tier::\"prodcution\");", "prodcution"),
        ("permit (principal in Role::\"boss\", action, resource);", "boss"),
        ("permit (principal, action == Action::\"turnFlagOff2\", resource);", "turnFlagOff2"),
        ("permit (principal, action, resource) when { context.fresh };", "fresh"),
        ("permit (principal is Robot, action, resource);", "Robot"),
    ];
    for (text, word) in cases {
        let text = format!("\n  {text}");
        let problems = PolicySet::with(&files(&[("own.cedar", &text)])).expect_err(word);
        assert!(problems.iter().any(|problem| problem.message.contains(word)), "{word}: {problems:?}");
        assert!(problems.iter().all(|problem| problem.line == 2 && problem.column > 1), "{word}: {problems:?}");
    }
}

#[test]
fn problems_of_all_files_are_told_at_once() {
    let both = files(&[("a.cedar", "permit"), ("b.cedar", "permit (principal is Robot, action, resource);")]);
    let problems = PolicySet::with(&both).expect_err("both are broken");
    let named: BTreeSet<&str> = problems.iter().map(|problem| problem.file.as_str()).collect();
    assert_eq!(named, BTreeSet::from(["a.cedar", "b.cedar"]));
}

#[test]
fn ids_are_names_and_belong_to_one_policy() {
    let twice = "@id(\"a\") forbid (principal is Agent, action, resource);";
    for text in [&format!("{twice}\n{twice}"), "@id(\"a b\") permit (principal, action, resource);"] {
        let problems = PolicySet::with(&files(&[("own.cedar", text)])).expect_err("refused");
        assert_eq!(problems.len(), 1, "{problems:?}");
    }
    let template = "permit (principal == ?principal, action, resource);";
    assert!(PolicySet::with(&files(&[("own.cedar", template)])).is_err());
}

#[test]
fn hostile_files_break_nothing() {
    let open = "permit (principal, action, resource) when { ";
    let nested = format!("{open}{}true{} }};", "(".repeat(20_000), ")".repeat(20_000));
    let nots = format!("{open}{}true }};", "!".repeat(60_000));
    let ifs = format!("{open}{}true{} }};", "if true then ".repeat(3_000), " else true".repeat(3_000));
    let dots = format!("{open}context{} }};", ".own".repeat(15_000));
    let brackets = format!("{open}context{} }};", "[\"own\"]".repeat(1_100));
    let big = "// comment\n".repeat(10_000);
    for (what, text) in
        [("nested", nested), ("nots", nots), ("ifs", ifs), ("dots", dots), ("brackets", brackets), ("big", big)]
    {
        let handed = files(&[("own.cedar", text.as_str())]);
        assert!(PolicySet::with(&handed).is_err(), "{what}");
        assert!(!check(&handed).passed(), "{what}");
    }
    // Long rather than deep: nothing is wrong with it, so it must be possible to decide under it.
    for (start, more) in [("1", "+1"), ("context has own", "&&1<2"), ("context has own", "||1<2")] {
        let chain = more.repeat(load::MAX_OPERATORS - 10);
        let long = format!("@id(\"long\") {open} ({start}{chain}) == true }};");
        let long = if start == "1" { long.replace("== true", "> 0") } else { long };
        assert!(check(&files(&[("own.cedar", &long)])).problems.is_empty(), "{more}");
        let request = by_human(&[], Action::ReadJournal, Tier::Production);
        let decision = with(&long).decide(&request);
        assert_eq!(decision, Decision { allowed: true, policies: vec!["own.cedar#long".to_owned()] }, "{more}");
    }
}

#[test]
fn the_hash_says_which_policies_are_in_force() {
    let text = "@id(\"a\") forbid (principal is Agent, action, resource);";
    assert_eq!(PolicySet::builtin().hash(), PolicySet::builtin().hash());
    assert_eq!(with(text).hash(), with(text).hash());
    assert_ne!(with(text).hash(), PolicySet::builtin().hash());
    let renamed = PolicySet::with(&files(&[("b.cedar", text)])).expect("it is sound");
    assert_ne!(with(text).hash(), renamed.hash());
}

#[test]
fn decisions_name_their_policies() {
    let set = with("@id(\"no-fridays\") forbid (principal is Human, action == Action::\"turnFlagOn\", resource);");
    let request = by_human(&[Role::Developer], Action::TurnFlagOn, Tier::Development);
    let permitted = PolicySet::builtin().decide(&request);
    assert_eq!(permitted, Decision { allowed: true, policies: vec!["developers-write-below-staging".to_owned()] });
    let refused = set.decide(&request);
    assert_eq!(refused, Decision { allowed: false, policies: vec!["own.cedar#no-fridays".to_owned()] });
    assert_eq!(set.policy("own.cedar#no-fridays").map(|info| (info.line, info.builtin)), Some((1, false)));
    let nobody = PolicySet::builtin().decide(&by_human(&[], Action::TurnFlagOn, Tier::Development));
    assert_eq!(nobody, Decision { allowed: false, policies: vec![] });
}

#[test]
fn a_policy_that_cannot_be_evaluated_allows_nothing() {
    let request = by_human(&[Role::Developer], Action::TurnFlagOn, Tier::Development);
    for effect in ["forbid", "permit"] {
        let text = format!(
            "@id(\"big\") {effect} (principal, action, resource) when {{ context.riskScore * 9223372036854775807 > 0 }};"
        );
        let set = with(&text);
        assert!(set.decide(&given(request.clone(), |facts| facts.risk_score = 1)).allowed == (effect == "permit"));
        let risky = given(request.clone(), |facts| facts.risk_score = 2);
        let refused = Decision { allowed: false, policies: vec!["own.cedar#big".to_owned()] };
        assert_eq!(set.decide(&risky), refused);
        assert_eq!(set.explain(&risky).failed.len(), 1);
    }
}

#[test]
fn an_environment_of_unknown_tier_and_an_unknown_place_are_refused() {
    let set = with("permit (principal, action, resource);");
    let mut request = by_human(&[Role::Administrator], Action::ReadConfiguration, Tier::Development);
    assert!(set.decide(&request).allowed);
    request.resource.tier = None;
    assert!(!set.decide(&request).allowed);
    let mut request = by_human(&[Role::Developer], Action::TurnFlagOn, Tier::Development);
    request.resource = Resource { project: String::new(), environment: String::new(), tier: None };
    assert!(!set.decide(&request).allowed);
}

#[test]
fn an_explanation_tells_what_applied_and_what_would_help() {
    let set = PolicySet::builtin();
    let request = by_human(&[Role::Developer], Action::TurnFlagOn, Tier::Production);
    let explained = set.explain(&request);
    let applied: Vec<&str> = explained.applied.iter().map(|info| info.id.as_str()).collect();
    assert_eq!(applied, ["people-no-direct-write-in-production"]);
    assert!(explained.nearest.iter().any(|info| info.id == "developers-propose-changes"), "{explained}");
    assert_eq!(explained.remedies, [Remedy::ChangeRequest]);
    assert!(explained.to_string().contains("built in, tiers.cedar:"), "{explained}");

    let key = by_human(&[Role::Administrator], Action::CreateSdkKey, Tier::Production);
    assert_eq!(set.explain(&key).remedies, [Remedy::FreshFactor]);
    let apply = given(by_human(&[Role::ReleaseManager], Action::ApplyRequest, Tier::Production), |facts| {
        facts.factor_fresh = true;
        facts.risk_level = RiskLevel::High;
    });
    assert_eq!(set.explain(&apply).remedies, [Remedy::Approvals(2)]);
    let kill = given(by_human(&[Role::ReleaseManager], Action::TurnFlagOff, Tier::Production), |facts| {
        facts.direction = Direction::Lowering;
        facts.factor_fresh = true;
    });
    assert!(set.explain(&kill).decision.allowed && set.explain(&kill).remedies.is_empty());
}

#[test]
fn check_warns_of_permits_that_never_take_effect_and_of_policies_without_a_name() {
    let text = "permit (principal is Agent, action, resource in Tier::\"production\");\n\
                @id(\"fine\") permit (principal is Agent, action in Action::\"read\", resource in Tier::\"testing\");\n\
                @id(\"bot\") permit (principal == Agent::\"bot\", action == Action::\"deleteFlag\", resource)\n\
                when { resource in Tier::\"staging\" };\n";
    let report = check(&files(&[("own.cedar", text)]));
    assert!(report.passed(), "{report}");
    let told: Vec<String> = report.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 3, "{report}");
    assert!(told[0].contains("never takes effect: \"agents-nothing-in-production\""), "{report}");
    assert!(told[1].contains("called \"own.cedar#policy-1\""), "{report}");
    assert!(told[2].starts_with("own.cedar:3:1:") && told[2].contains("agents-read-only-in-staging"), "{report}");
    assert!(report.to_string().ends_with("3 policies, 0 errors, 3 warnings"), "{report}");

    let impossible = "@id(\"a\") permit (principal is Agent, action, resource) when { principal is Human };";
    let report = check(&files(&[("own.cedar", impossible)]));
    assert_eq!((report.passed(), report.warnings.len()), (true, 1), "{report}");
    let broken = check(&files(&[("own.cedar", "permit (principal, action, resource) when { context.owns };")]));
    assert!(!broken.passed() && broken.to_string().starts_with("error: own.cedar:1:"), "{broken}");
}

#[test]
fn the_examples_in_the_documentation_are_sound() {
    let page = include_str!("../../../../docs/POLICY.md");
    let examples: Vec<&str> = page.split("```cedar\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(examples.len(), 3);
    for example in examples {
        let report = check(&files(&[("payments.cedar", example)]));
        assert!(report.passed() && report.warnings.is_empty(), "{report}");
    }
    for (name, value) in [
        ("MAX_FILE_BYTES", load::MAX_FILE_BYTES),
        ("MAX_FILE_POLICIES", load::MAX_FILE_POLICIES),
        ("MAX_POLICIES", MAX_POLICIES),
        ("MAX_OPERATORS", load::MAX_OPERATORS),
        ("MAX_APPROVALS", MAX_APPROVALS as usize),
    ] {
        let line = page.lines().find(|line| line.starts_with(&format!("| `{name}` "))).expect("the limit is told");
        assert_eq!(line.split('|').nth(2).map(|cell| cell.trim().replace(',', "")), Some(value.to_string()), "{name}");
    }
    for (name, _) in PolicySet::builtin_files() {
        assert!(page.contains(&format!("| `{name}` |")), "{name} is not told");
    }
    for answer in Answer::ALL {
        assert!(page.contains(&format!("| `{}` |", answer.as_str())), "{answer:?} is not told");
    }
}

#[test]
fn what_is_wrong_for_every_action_is_said_once() {
    let text = "permit (principal, action, resource) when { context.nothing == 1 };";
    let report = check(&BTreeMap::from([("ours.cedar".to_owned(), text.to_owned())]));
    assert_eq!(report.problems.len(), 1, "{report}");
    let others = format!("(and likewise for {} other actions)", Action::ALL.len() - 1);
    assert!(report.to_string().contains(&others), "{report}");
}
