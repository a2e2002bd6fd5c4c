//! What each edit means, by example.

use super::*;
use crate::policy::Direction::{Lowering, Still, Widening};

/// Direction, share and AI share, in thousandths.
fn brief(movement: &Movement) -> (Direction, u32, u32) {
    let thousandths = |share: f64| (share * 1_000.0).round() as u32;
    (movement.direction, thousandths(movement.share), thousandths(movement.ai_share))
}

/// What becomes of one flag's configuration.
fn edit(flag: &Flag, change: impl FnOnce(&mut FlagEnvironment)) -> (Direction, u32, u32) {
    brief(&becomes(flag, &with(flag, change)))
}

#[test]
fn switching_a_flag_moves_those_who_get_something_else() {
    let base = with(&flag("f"), |config| config.fallthrough = rollout("s", &[("ai", 5_000), ("human", 95_000)]));
    let off = with(&base, |config| config.on = false);
    assert_eq!(edit(&base, |config| config.on = false), (Lowering, 1_000, 0));
    assert_eq!(edit(&off, |config| config.on = true), (Widening, 1_000, 50));
    let same = with(&off, |config| config.off_variation = "human".to_owned());
    assert_eq!(edit(&same, |config| config.on = true), (Widening, 50, 50));
    assert_eq!(edit(&with(&same, |config| config.on = true), |config| config.on = false), (Lowering, 50, 0));
    assert_eq!(edit(&off, |config| config.fallthrough = only("human")), (Still, 0, 0));
    let person = with(&off, |config| config.fallthrough = only("human"));
    assert_eq!(edit(&person, |config| config.on = true), (Lowering, 1_000, 0));
}

#[test]
fn the_off_variation_moves_those_who_get_it() {
    let on = flag("f");
    let off = with(&on, |config| config.on = false);
    assert_eq!(edit(&on, |config| config.off_variation = "plain".to_owned()), (Still, 0, 0));
    assert_eq!(edit(&off, |config| config.off_variation = "plain".to_owned()), (Lowering, 1_000, 0));
    assert_eq!(edit(&off, |config| config.off_variation = "ai".to_owned()), (Lowering, 1_000, 1_000));
}

#[test]
fn a_rollout_moves_its_slots_and_no_more() {
    let at = |ai: u32| {
        let serve = rollout("s", &[("ai", 1_000), ("human", 99_000)]);
        with(&flag("f"), |config| config.fallthrough = reweighed(&serve, &[("ai", ai), ("human", 100_000 - ai)]))
    };
    assert_eq!(brief(&becomes(&at(1_000), &at(5_000))), (Widening, 40, 40));
    assert_eq!(brief(&becomes(&at(5_000), &at(1_000))), (Lowering, 40, 0));
    assert_eq!(brief(&becomes(&at(1_000), &at(100_000))), (Widening, 990, 990));
    assert_eq!(brief(&becomes(&at(5_000), &at(5_000))), (Still, 0, 0));
    let reshuffled = with(&at(5_000), |config| {
        config.fallthrough = rollout("other", &[("ai", 5_000), ("human", 95_000)]);
    });
    assert_eq!(brief(&becomes(&at(5_000), &reshuffled)), (Widening, 1_000, 50));
    let three = with(&flag("f"), |config| {
        config.fallthrough = rollout("s", &[("ai", 20_000), ("ai2", 20_000), ("human", 60_000)]);
    });
    let less = with(&three, |config| {
        config.fallthrough = reweighed(&config.fallthrough, &[("ai", 30_000), ("ai2", 0), ("human", 70_000)]);
    });
    assert_eq!(brief(&becomes(&three, &less)), (Widening, 200, 100));
    // From one variation to a rollout of it: only who has no targeting key gets something else, and is not counted.
    let all = with(&flag("f"), |config| config.fallthrough = only("ai"));
    assert_eq!(brief(&becomes(&all, &at(40_000))), (Lowering, 600, 0));
    let by_account = with(&at(40_000), |config| {
        if let Serve::Rollout(rollout) = &mut config.fallthrough {
            rollout.bucket_by = "account".to_owned();
        }
    });
    assert_eq!(brief(&becomes(&all, &by_account)), (Widening, 1_000, 0));
    assert_eq!(brief(&becomes(&at(40_000), &by_account)), (Widening, 1_000, 400));
}

#[test]
fn unlabelled_variations_are_not_by_a_person() {
    assert_eq!(edit(&flag("f"), |config| config.fallthrough = only("plain")), (Widening, 1_000, 0));
    assert_eq!(edit(&flag("f"), |config| config.fallthrough = only("off")), (Lowering, 1_000, 0));
}

#[test]
fn rules_that_stay_match_the_people_they_matched() {
    let us = || clause("country", Op::In, &["US"]);
    let pro = || clause("plan", Op::In, &["pro"]);
    let base = with(&flag("f"), |config| {
        config.rules = vec![
            rule("us", us(), rollout("u", &[("ai", 1_000), ("human", 99_000)])),
            rule("pro", pro(), only("human")),
        ];
        config.fallthrough = only("off");
    });
    let up = |config: &mut FlagEnvironment| {
        config.rules[0].serve = reweighed(&config.rules[0].serve, &[("ai", 3_000), ("human", 97_000)]);
    };
    assert_eq!(edit(&base, up), (Widening, 20, 20));
    assert_eq!(edit(&base, |config| config.rules[0].id = "renamed".to_owned()), (Still, 0, 0));
    assert_eq!(edit(&base, |config| config.rules[0].description = "text".to_owned()), (Still, 0, 0));
    // Without the rule its people meet the next one or the fallthrough, both safe.
    assert_eq!(edit(&base, |config| drop(config.rules.remove(0))), (Lowering, 1_000, 0));
    assert_eq!(edit(&base, |config| config.rules.swap(0, 1)), (Lowering, 10, 0));
    assert_eq!(edit(&base, |config| config.rules.push(rule("new", pro(), only("ai")))), (Still, 0, 0));
    assert_eq!(edit(&base, |config| config.rules.insert(0, rule("new", pro(), only("ai")))), (Widening, 1_000, 1_000));
    let clauses = |config: &mut FlagEnvironment| config.rules[0].clauses[0].values.push(json!("DE"));
    assert_eq!(edit(&base, clauses), (Widening, 1_000, 10));
    assert_eq!(edit(&base, |config| config.fallthrough = only("human")), (Lowering, 1_000, 0));
}

#[test]
fn what_the_log_says_of_a_rule_bounds_its_share() {
    let us = || clause("country", Op::In, &["US"]);
    let base = with(&flag("f"), |config| config.rules = vec![rule("us", us(), only("human"))]);
    let wide = with(&base, |config| config.rules[0].serve = only("ai"));
    let asked = |reach: Reach| {
        let (before, after) = (project(std::slice::from_ref(&base), &[]), project(std::slice::from_ref(&wide), &[]));
        brief(&direction(&before, &after, HERE, &keys(&["f"]), &BTreeSet::new(), &reach))
    };
    assert_eq!(asked(Reach::unknown()), (Widening, 1_000, 1_000));
    assert_eq!(asked(Reach::unknown().with("f", Some("us"), 0.2)), (Widening, 200, 200));
    assert_eq!(asked(Reach::unknown().with("f", None, 0.2)), (Widening, 1_000, 1_000));
}

#[test]
fn targets_move_people_whom_nobody_can_count() {
    let base = with(&flag("f"), |config| config.targets = vec![target("ai", &["ann", "bob"])]);
    assert_eq!(edit(&base, |config| config.targets[0].keys.truncate(1)), (Lowering, 1_000, 0));
    assert_eq!(edit(&base, |config| config.targets[0].keys.push("cy".to_owned())), (Widening, 1_000, 1_000));
    assert_eq!(edit(&base, |config| config.targets.push(target("human", &["cy"]))), (Still, 0, 0));
    assert_eq!(edit(&base, |config| config.targets.insert(0, target("human", &["bob"]))), (Lowering, 1_000, 0));
    // A later target of a key that an earlier one names is never met.
    assert_eq!(edit(&base, |config| config.targets.push(target("plain", &["bob"]))), (Still, 0, 0));
}

#[test]
fn segments_concern_the_flags_whose_rules_use_them() {
    let flags = [with(&flag("f"), |config| {
        config.rules = vec![rule("beta", clause("", Op::Segment, &["beta"]), only("ai"))];
    })];
    let asked = |before: (Segment, KeySet), after: (Segment, KeySet), flags: &[Flag]| {
        let (before, after) = (project(flags, &[before]), project(flags, &[after]));
        direction(&before, &after, HERE, &BTreeSet::new(), &keys(&["beta"]), &Reach::unknown())
    };
    let grown = asked(segment("beta", &["a"], &[]), segment("beta", &["a", "b"], &[]), &flags);
    assert_eq!(brief(&grown), (Widening, 1_000, 1_000));
    assert_eq!(grown.flags, ["f"]);
    let mut renamed = segment("beta", &["a"], &[]);
    renamed.0.name = "Beta".to_owned();
    assert_eq!(brief(&asked(segment("beta", &["a"], &[]), renamed, &flags)), (Still, 0, 0));
    let off = [with(&flags[0], |config| config.on = false)];
    let unused = asked(segment("beta", &["a"], &[]), segment("beta", &["b"], &[]), &off);
    assert_eq!((brief(&unused), unused.flags.len()), ((Still, 0, 0), 0));
    let safe = [with(&flags[0], |config| config.rules[0].serve = only("off"))];
    assert_eq!(brief(&asked(segment("beta", &["a"], &[]), segment("beta", &["b"], &[]), &safe)), (Lowering, 1_000, 0));
}

#[test]
fn a_thousand_rules_on_one_segment_are_answered_without_comparing_all_of_them() {
    let serve = |index: u32| rollout(&format!("s{index}"), &[("human", 50_000), ("off", 50_000)]);
    let ruled = |index: u32| {
        let mut ruled = rule(&format!("r{index}"), clause("", Op::Segment, &["beta"]), serve(index));
        ruled.clauses.push(clause("age", Op::In, &[&index.to_string()]));
        ruled
    };
    let flags = [with(&flag("f"), |config| config.rules = (0..1_000).map(ruled).collect())];
    let (before, after) =
        (project(&flags, &[segment("beta", &["a"], &[])]), project(&flags, &[segment("beta", &["b"], &[])]));
    let asked = |before, after, flags: &[&str], segments: &[&str]| {
        brief(&direction(before, after, HERE, &keys(flags), &keys(segments), &Reach::unknown()))
    };
    assert_eq!(asked(&before, &after, &[], &["beta"]), (Widening, 1_000, 1_000));
    let wider = with(&flags[0], |config| config.fallthrough = only("ai"));
    let wider = project(&[wider], &[segment("beta", &["a"], &[])]);
    assert_eq!(asked(&before, &wider, &["f"], &[]), (Widening, 1_000, 1_000));
    assert_eq!(asked(&wider, &before, &["f"], &[]), (Lowering, 1_000, 0));
}

#[test]
fn dependants_move_with_what_they_require() {
    let first = with(&flag("first"), |config| {
        config.fallthrough = rollout("s", &[("ai", 10_000), ("human", 90_000)]);
    });
    let on_ai = with(&flag("on-ai"), |config| {
        config.prerequisites = vec![needs("first", "ai")];
        config.fallthrough = only("ai");
    });
    let on_human = with(&on_ai, |config| config.prerequisites = vec![needs("first", "human")]);
    let on_human = Flag { key: "on-human".to_owned(), ..on_human };
    let killed = with(&first, |config| config.on = false);
    let movement = moves(&[first.clone(), on_ai.clone()], &[killed.clone(), on_ai.clone()]);
    assert_eq!(brief(&movement), (Lowering, 1_000, 0));
    assert_eq!(movement.flags, ["first", "on-ai"]);
    // A rollback of one flag can turn another on.
    let back = with(&first, |config| {
        config.fallthrough = reweighed(&config.fallthrough, &[("ai", 0), ("human", 100_000)]);
    });
    let movement = moves(&[first.clone(), on_human.clone()], &[back.clone(), on_human.clone()]);
    assert_eq!(brief(&movement), (Widening, 100, 100));
    assert_eq!(movement.flags, ["first", "on-human"]);
    assert_eq!(brief(&moves(&[first.clone(), on_ai.clone()], &[back, on_ai.clone()])), (Lowering, 100, 0));
    // Through two.
    let last = with(&flag("last"), |config| {
        config.prerequisites = vec![needs("on-human", "ai")];
        config.fallthrough = only("plain");
    });
    let all = |first: &Flag| [first.clone(), on_human.clone(), last.clone()];
    let movement = moves(&all(&killed), &all(&first));
    assert_eq!(brief(&movement), (Widening, 1_000, 900));
    assert_eq!(movement.flags, ["first", "last", "on-human"]);
    // One that is off does not stir.
    let asleep = with(&on_human, |config| config.on = false);
    let movement = moves(&[killed.clone(), asleep.clone()], &[first.clone(), asleep]);
    assert_eq!((brief(&movement), movement.flags), ((Widening, 1_000, 100), vec!["first".to_owned()]));
}

#[test]
fn prerequisites_that_come_and_go() {
    let first = with(&flag("first"), |config| config.fallthrough = rollout("s", &[("ai", 10_000), ("human", 90_000)]));
    let bare = with(&flag("f"), |config| config.fallthrough = only("ai"));
    let gated = with(&bare, |config| config.prerequisites = vec![needs("first", "ai")]);
    let both = |flag: &Flag| [first.clone(), flag.clone()];
    assert_eq!(brief(&moves(&both(&bare), &both(&gated))), (Lowering, 1_000, 0));
    assert_eq!(brief(&moves(&both(&gated), &both(&bare))), (Widening, 1_000, 1_000));
    let closed = with(&gated, |config| config.prerequisites.push(needs("first", "plain")));
    assert_eq!(brief(&moves(&both(&closed), &both(&with(&closed, |c| c.fallthrough = only("ai2"))))), (Still, 0, 0));
    // Turning on behind a prerequisite reaches no more than meet it.
    let off = with(&gated, |config| config.on = false);
    assert_eq!(brief(&moves(&both(&off), &both(&gated))), (Widening, 100, 100));
}

#[test]
fn archived_deleted_and_hidden_flags_leave_people_to_the_callers_default() {
    let base = flag("f");
    let archived = Flag { archived: true, ..base.clone() };
    assert_eq!(brief(&becomes(&base, &archived)), (Widening, 1_000, 0));
    assert_eq!(brief(&moves(std::slice::from_ref(&base), &[])), (Widening, 1_000, 0));
    assert_eq!(brief(&moves(std::slice::from_ref(&archived), &[])), (Still, 0, 0));
    assert_eq!(brief(&becomes(&archived, &with(&archived, |c| c.on = false))), (Still, 0, 0));
    assert_eq!(brief(&becomes(&archived, &base)), (Lowering, 1_000, 0));
    let off = with(&base, |config| config.on = false);
    assert_eq!(brief(&moves(&[], std::slice::from_ref(&off))), (Lowering, 1_000, 0));
    let shown = Flag { client_side: true, ..with(&base, |config| config.fallthrough = only("ai")) };
    let hidden = Flag { client_side: false, ..shown.clone() };
    let movement = becomes(&hidden, &shown);
    assert_eq!(brief(&movement), (Widening, 1_000, 1_000));
    assert!(movement.reasons[0].starts_with("in browsers, "), "{movement:?}");
    assert_eq!(brief(&becomes(&shown, &hidden)), (Widening, 1_000, 0));
}

#[test]
fn editing_a_variation_moves_who_gets_it() {
    let base = with(&flag("f"), |config| config.fallthrough = rollout("s", &[("ai", 5_000), ("human", 95_000)]));
    let edited = |variation: &str, provenance: Option<ProvenanceKind>| {
        let mut edited = base.clone();
        let found = edited.variations.iter_mut().find(|known| known.key == variation).unwrap();
        found.value = json!("edited");
        if let (Some(by), Some(known)) = (provenance, &mut found.provenance) {
            known.by = by;
        }
        brief(&becomes(&base, &edited))
    };
    assert_eq!(edited("ai", None), (Widening, 50, 50));
    assert_eq!(edited("human", None), (Lowering, 950, 0));
    assert_eq!(edited("human", Some(ProvenanceKind::Ai)), (Widening, 950, 950));
    assert_eq!(edited("plain", None), (Still, 0, 0));
    assert_eq!(edited("off", None), (Still, 0, 0));
    let named = Flag { name: "Name".to_owned(), description: "Text".to_owned(), ..base.clone() };
    assert_eq!(brief(&becomes(&base, &named)), (Still, 0, 0));
    // Saying that a person wrote what was by AI moves nobody, and is said.
    let mut relabelled = base.clone();
    relabelled.variations[2].provenance = relabelled.variations[1].provenance.clone();
    let movement = becomes(&base, &relabelled);
    assert_eq!(brief(&movement), (Still, 0, 0));
    assert_eq!(movement.reasons, ["\"f\": said to be by a person from now on: \"ai\""]);
}

#[test]
fn nothing_can_be_said_of_flags_that_require_each_other() {
    let one = with(&flag("one"), |config| config.prerequisites = vec![needs("two", "human")]);
    let two = with(&flag("two"), |config| config.prerequisites = vec![needs("one", "human")]);
    let edited = with(&one, |config| config.fallthrough = rollout("s", &[("ai", 50_000), ("human", 50_000)]));
    assert_eq!(moves(&[one.clone(), two.clone()], &[edited, two.clone()]).direction, Widening);
    // What serves nobody the wanted variation keeps the other off, and so itself.
    let edited = with(&one, |config| config.fallthrough = only("ai"));
    assert_eq!(moves(&[one, two.clone()], &[edited, two]).direction, Lowering);
}

#[test]
fn an_environment_that_comes_or_goes_moves_nobody() {
    let (before, mut after) = (project(&[flag("f")], &[]), project(&[], &[]));
    after.environments.remove(HERE);
    assert_eq!(direction(&before, &after, HERE, &keys(&["f"]), &BTreeSet::new(), &Reach::unknown()).direction, Still);
}

#[test]
fn words_name_flag_share_and_variations() {
    let base = with(&flag("f"), |config| config.fallthrough = rollout("s", &[("ai", 1_000), ("human", 99_000)]));
    let wider = with(&base, |config| {
        config.fallthrough = reweighed(&config.fallthrough, &[("ai", 1_250), ("human", 98_750)]);
    });
    let movement = becomes(&base, &wider);
    assert_eq!(movement.reasons, ["\"f\": up to 0.25 % are served something else (\"human\" → \"ai\")"]);
}
