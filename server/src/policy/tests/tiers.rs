//! The table of tiers and tools, line by line, in plain words.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use proptest::prelude::*;

use super::*;
use Answer::{Factor, Masked, No, Own, Plan, Scope, Stop, Yes};
use PrincipalKind::{Agent, Application, Human, Operator, Service, System};
use Role::{Administrator, Approver, Auditor, Developer, Experimenter, ReleaseManager, Viewer};

type Cells = BTreeMap<(Action, Who), ([Answer; 4], Option<Answer>)>;

fn cells_of(set: &PolicySet) -> Cells {
    rows(set).into_iter().map(|row| ((row.action, row.who), (row.tiers, row.beyond))).collect()
}

fn builtin() -> &'static Cells {
    static CELLS: OnceLock<Cells> = OnceLock::new();
    CELLS.get_or_init(|| cells_of(&PolicySet::builtin()))
}

/// Development, testing, staging, production.
fn tiers(who: Who, action: Action) -> [Answer; 4] {
    builtin()[&(action, who)].0
}

fn of_group(group: Group) -> impl Iterator<Item = Action> {
    Action::ALL.iter().copied().filter(move |action| action.group() == group)
}

#[track_caller]
fn all(who: Who, group: Group, expected: [Answer; 4]) {
    for action in of_group(group) {
        assert_eq!(tiers(who, action), expected, "{} {action}", who.name());
    }
}

const AGENT: Who = Who::Other(Agent);
const SERVICE: Who = Who::Other(Service);

fn human(role: Role) -> Who {
    Who::Human(Some(role))
}

#[test]
fn agents_have_all_of_development_less_of_testing_a_look_at_staging_and_nothing_of_production() {
    // In staging it may propose, which writes nothing there: a person decides.
    all(AGENT, Group::Edit, [Scope, Scope, Answer::Request, No]);
    all(AGENT, Group::Delete, [Scope, No, No, No]);
    for action in [
        Action::ReadConfiguration,
        Action::ReadConnections,
        Action::ReadAssignments,
        Action::ReadJournal,
        Action::ReadRequests,
    ] {
        assert_eq!(tiers(AGENT, action), [Scope, Scope, Masked, No], "{action}");
    }
    for action in [Action::CreateSdkKey, Action::RotateSdkKey, Action::RevokeSdkKey] {
        assert_eq!(tiers(AGENT, action), [Scope, No, No, No], "{action}");
    }
    assert_eq!(tiers(AGENT, Action::OpenRequest), [Scope, Scope, Scope, No]);
    assert_eq!(tiers(AGENT, Action::SubmitRequest), [Own, Own, Own, No]);
    for action in Action::ALL {
        assert_eq!(tiers(AGENT, *action)[3], No, "production: {action}");
    }
}

#[test]
fn agents_never_govern_approve_apply_or_read_the_audit() {
    all(AGENT, Group::Administer, [No; 4]);
    all(AGENT, Group::Export, [No; 4]);
    for action in [
        Action::ReadAccess,
        Action::ReadAudit,
        Action::CreateToken,
        Action::RotateToken,
        Action::RevokeToken,
        Action::ApproveRequest,
        Action::RejectRequest,
        Action::ApplyRequest,
        Action::ExpireRequest,
        Action::ReviewEntry,
        Action::Evaluate,
    ] {
        assert_eq!(tiers(AGENT, action), [No; 4], "{action}");
    }
}

#[test]
fn agents_have_sixty_changes_an_hour_in_testing() {
    let set = PolicySet::builtin();
    let change = |tier, changes| {
        given(by(Agent, &[], Action::SetRollout, tier), |facts| {
            facts.in_scope = true;
            facts.changes_last_hour = changes;
        })
    };
    assert!(set.decide(&change(Tier::Testing, 59)).allowed);
    assert_eq!(set.decide(&change(Tier::Testing, 60)).policies, ["agents-quota-in-testing"]);
    assert!(set.decide(&change(Tier::Development, 60)).allowed);
}

#[test]
fn developers_have_development_and_testing_and_propose_above() {
    all(human(Developer), Group::Edit, [Yes, Yes, Answer::Request, Answer::Request]);
    all(human(Developer), Group::Delete, [Yes, Yes, Answer::Request, Answer::Request]);
    all(human(Developer), Group::Administer, [No; 4]);
    assert_eq!(tiers(human(Developer), Action::ReadConfiguration), [Yes; 4]);
    assert_eq!(tiers(human(Developer), Action::ReadAssignments), [Yes, Yes, Yes, No]);
    assert_eq!(tiers(human(Developer), Action::ReadAccess), [No; 4]);
    assert_eq!(tiers(human(Developer), Action::OpenRequest), [Yes; 4]);
    assert_eq!(tiers(human(Developer), Action::WithdrawRequest), [Own; 4]);
    assert_eq!(tiers(human(Developer), Action::ApproveRequest), [No; 4]);
    assert_eq!(tiers(human(Developer), Action::ApplyRequest), [Yes, Yes, No, No]);
    assert_eq!(tiers(human(Developer), Action::CreateSdkKey), [Factor, Factor, No, No]);
}

#[test]
fn release_managers_edit_staging_and_stop_what_goes_wrong_in_production() {
    all(human(ReleaseManager), Group::Edit, [Yes, Yes, Yes, Stop]);
    all(human(ReleaseManager), Group::Delete, [Yes, Yes, Yes, Answer::Request]);
    assert_eq!(tiers(human(ReleaseManager), Action::ApplyRequest), [Yes, Yes, Yes, Factor]);
}

#[test]
fn nobody_else_writes_production() {
    for role in Role::ALL {
        let expected = match role {
            ReleaseManager => continue,
            Developer | Administrator => Answer::Request,
            _ => No,
        };
        for action in of_group(Group::Edit).chain(of_group(Group::Delete)) {
            assert_eq!(tiers(human(role), action)[3], expected, "{role:?} {action}");
        }
    }
    for action in of_group(Group::Edit).chain(of_group(Group::Delete)) {
        for who in [Who::Human(None), Who::Other(Operator), SERVICE, AGENT, Who::Other(Application)] {
            assert_eq!(tiers(who, action)[3], No, "{} {action}", who.name());
        }
    }
}

#[test]
fn stopping_takes_a_release_manager_a_fresh_factor_and_a_lowering() {
    let set = PolicySet::builtin();
    let stop = |roles: &[Role], factor_fresh, direction| {
        let request = by_human(roles, Action::TurnFlagOff, Tier::Production);
        set.decide(&given(request, |facts| {
            facts.factor_fresh = factor_fresh;
            facts.direction = direction;
        }))
        .allowed
    };
    assert!(stop(&[ReleaseManager], true, Direction::Lowering));
    assert!(!stop(&[ReleaseManager], false, Direction::Lowering));
    assert!(!stop(&[ReleaseManager], true, Direction::Still));
    assert!(!stop(&[ReleaseManager], true, Direction::Widening));
    assert!(!stop(&[Administrator, Developer, Approver], true, Direction::Lowering));
}

#[test]
fn approvers_decide_with_a_fresh_factor_and_never_on_their_own() {
    for action in [Action::ApproveRequest, Action::RejectRequest] {
        assert_eq!(tiers(human(Approver), action), [Factor; 4]);
        for who in Who::all().into_iter().filter(|who| *who != human(Approver)) {
            assert_eq!(tiers(who, action), [No; 4], "{} {action}", who.name());
        }
    }
    for role in [Approver, Administrator] {
        assert_eq!(tiers(human(role), Action::ReviewEntry), [Factor; 4]);
    }
    let set = PolicySet::builtin();
    for action in [Action::ApproveRequest, Action::ReviewEntry] {
        let own = given(by_human(&Role::ALL, action, Tier::Production), |facts| {
            facts.factor_fresh = true;
            facts.own = true;
        });
        assert_eq!(set.decide(&own).policies, ["nobody-decides-on-their-own"]);
    }
}

#[test]
fn only_authors_touch_their_requests() {
    let set = PolicySet::builtin();
    for action in [Action::EditRequest, Action::SubmitRequest, Action::WithdrawRequest] {
        let request = by_human(&Role::ALL, action, Tier::Production);
        assert_eq!(set.decide(&request).policies, ["only-authors-edit-requests"]);
        assert!(set.decide(&given(request, |facts| facts.own = true)).allowed);
    }
}

#[test]
fn service_accounts_do_what_they_are_scoped_to_and_in_production_only_apply() {
    all(SERVICE, Group::Edit, [Scope, Scope, Scope, No]);
    all(SERVICE, Group::Delete, [Scope, Scope, Scope, No]);
    all(SERVICE, Group::Credential, [No; 4]);
    all(SERVICE, Group::Administer, [No; 4]);
    for action in Action::ALL {
        let in_production = matches!(action, Action::ReadRequests | Action::ApplyRequest);
        assert_eq!(tiers(SERVICE, *action)[3], if in_production { Scope } else { No }, "{action}");
    }
}

#[test]
fn the_system_follows_plans_and_lowers() {
    let system = Who::Other(System);
    all(system, Group::Edit, [Plan; 4]);
    all(system, Group::Delete, [No; 4]);
    assert_eq!(tiers(system, Action::ApplyRequest), [Yes; 4]);
    assert_eq!(tiers(system, Action::ExpireRequest), [Yes; 4]);
    assert_eq!(tiers(system, Action::RevokeSdkKey), [Yes; 4]);
    assert_eq!(builtin()[&(Action::CreateToken, system)].1, Some(Plan));
    assert_eq!(builtin()[&(Action::CreateProject, system)].1, Some(Yes));
    let lower = given(by(System, &[], Action::SetRollout, Tier::Production), |facts| {
        facts.direction = Direction::Lowering;
        facts.frozen = true;
    });
    assert!(PolicySet::builtin().decide(&lower).allowed);
    for kind in PrincipalKind::ALL {
        let request = given(by(kind, &Role::ALL, Action::ExpireRequest, Tier::Testing), |facts| {
            facts.factor_fresh = true;
            facts.in_scope = true;
        });
        assert_eq!(PolicySet::builtin().decide(&request).allowed, kind == System);
    }
}

#[test]
fn an_sdk_key_evaluates_in_its_environment_and_does_nothing_else() {
    let application = Who::Other(Application);
    for action in Action::ALL {
        let expected = if *action == Action::Evaluate { Scope } else { No };
        assert_eq!(tiers(application, *action), [expected; 4], "{action}");
    }
}

#[test]
fn the_operator_has_the_lower_tiers_and_the_first_invitation() {
    let operator = Who::Other(Operator);
    all(operator, Group::Edit, [Yes, Yes, No, No]);
    all(operator, Group::Delete, [Yes, Yes, No, No]);
    all(operator, Group::Read, [Yes; 4]);
    all(operator, Group::Request, [No; 4]);
    for action in of_group(Group::Administer) {
        let expected = match action {
            Action::CreateAccount | Action::GrantRole => Answer::First,
            Action::CreateProject
            | Action::CreateEnvironment
            | Action::UpdateEnvironment
            | Action::DeleteEnvironment
            | Action::DeclareFreeze
            | Action::LiftFreeze => Yes,
            _ => No,
        };
        assert_eq!(builtin()[&(action, operator)].1, Some(expected), "{action}");
    }
}

#[test]
fn what_an_agent_proposes_needs_a_person_however_low_its_risk() {
    let set = PolicySet::builtin();
    let apply = |by_agent, approvals| {
        given(by(System, &[], Action::ApplyRequest, Tier::Staging), |facts| {
            facts.by_agent = by_agent;
            facts.approvals = approvals;
            facts.approved_plan = true;
        })
    };
    assert!(set.decide(&apply(false, 0)).allowed);
    assert_eq!(set.decide(&apply(true, 0)).policies, ["approvals-for-agents"]);
    assert!(set.decide(&apply(true, 1)).allowed);
    assert_eq!(set.needed_approvals(&apply(true, 0)), Some(1));
}

#[test]
fn administrators_prove_a_factor_for_all_but_a_new_project() {
    for action in of_group(Group::Credential).chain(of_group(Group::Administer)) {
        let expected = match action {
            Action::CreateProject => Yes,
            Action::ClaimAccount => No,
            _ => Factor,
        };
        assert_eq!(tiers(human(Administrator), action), [expected; 4], "{action}");
    }
    for role in [Viewer, Approver, Auditor, Experimenter] {
        all(human(role), Group::Administer, [No; 4]);
    }
    for action in of_group(Group::Administer) {
        let freezes = matches!(action, Action::DeclareFreeze | Action::LiftFreeze);
        assert_eq!(tiers(human(ReleaseManager), action), [if freezes { Factor } else { No }; 4], "{action}");
    }
}

#[test]
fn the_audit_is_for_auditors_and_administrators() {
    for action in [Action::ReadAudit, Action::ExportAudit, Action::ReadAccess] {
        for role in Role::ALL {
            let expected = if matches!(role, Auditor | Administrator) { Yes } else { No };
            assert_eq!(tiers(human(role), action), [expected; 4], "{role:?} {action}");
        }
    }
    all(human(Auditor), Group::Read, [Yes; 4]);
    all(human(Auditor), Group::Edit, [No; 4]);
    assert_eq!(tiers(human(Experimenter), Action::ReadAssignments), [Yes; 4]);
    assert_eq!(tiers(human(Experimenter), Action::ReadAudit), [No; 4]);
    assert_eq!(tiers(human(Viewer), Action::ReadAssignments), [No; 4]);
}

#[test]
fn a_freeze_lets_only_lowering_through() {
    let set = PolicySet::builtin();
    let frozen = |kind, roles: &[Role], action, tier, mode, direction| {
        set.decide(&given(by(kind, roles, action, tier), |facts| {
            facts.frozen = true;
            facts.factor_fresh = true;
            facts.in_scope = true;
            facts.approved_plan = true;
            facts.approvals = 5;
            facts.mode = mode;
            facts.direction = direction;
        }))
        .allowed
    };
    use Direction::{Lowering, Still, Widening};
    for direction in [Still, Widening] {
        for mode in [Mode::Direct, Mode::Proposed] {
            assert!(!frozen(System, &[], Action::ApplyRequest, Tier::Production, mode, direction));
        }
        assert!(!frozen(Human, &Role::ALL, Action::SetRollout, Tier::Staging, Mode::Direct, direction));
        assert!(!frozen(System, &[], Action::SetRollout, Tier::Production, Mode::Direct, direction));
        assert!(frozen(Human, &Role::ALL, Action::SetRollout, Tier::Production, Mode::Proposed, direction));
    }
    assert!(frozen(Human, &Role::ALL, Action::TurnFlagOff, Tier::Production, Mode::Direct, Lowering));
    assert!(frozen(System, &[], Action::ApplyRequest, Tier::Production, Mode::Direct, Lowering));
}

#[test]
fn the_risk_says_how_many_approvals_it_takes() {
    let set = PolicySet::builtin();
    let needed = |set: &PolicySet, tier, risk_level| {
        set.needed_approvals(&given(by(System, &[], Action::ApplyRequest, tier), |facts| facts.risk_level = risk_level))
    };
    use RiskLevel::{High, Low, Medium};
    for tier in [Tier::Development, Tier::Testing] {
        assert_eq!([Low, Medium, High].map(|level| needed(&set, tier, level)), [Some(0); 3]);
    }
    assert_eq!([Low, Medium, High].map(|level| needed(&set, Tier::Staging, level)), [Some(0), Some(1), Some(1)]);
    assert_eq!([Low, Medium, High].map(|level| needed(&set, Tier::Production, level)), [Some(0), Some(1), Some(2)]);

    let stricter = with(
        "@id(\"four-eyes\") forbid (principal, action == Action::\"applyRequest\", resource in Tier::\"production\")
         when { context.approvals < 3 };",
    );
    assert_eq!(needed(&stricter, Tier::Production, Low), Some(3));
    let never = with("@id(\"never\") forbid (principal, action == Action::\"applyRequest\", resource);");
    assert_eq!(needed(&never, Tier::Production, Low), None);
}

#[test]
fn no_file_of_an_operator_opens_what_the_tiers_close() {
    let open = cells_of(&with("@id(\"all\") permit (principal, action, resource);"));
    for ((action, who), cells) in builtin() {
        if *who == AGENT {
            assert_eq!(&open[&(*action, *who)], cells, "agent {action}");
        }
        if matches!(action.group(), Group::Edit | Group::Delete) {
            let (was, is) = (cells.0[3], open[&(*action, *who)].0[3]);
            // Proposing may be opened to people; writing at once may not.
            assert!(is == was || (matches!(who, Who::Human(_)) && is == Answer::Request), "{} {action}", who.name());
        }
    }
}

#[test]
fn a_project_and_the_installation_are_answered_alike() {
    let set = PolicySet::builtin();
    for action in Action::ALL
        .iter()
        .filter(|action| matches!(action.group(), Group::Read | Group::Export | Group::Credential | Group::Administer))
    {
        for kind in PrincipalKind::ALL {
            let mut request = given(by(kind, &Role::ALL, *action, Tier::Testing), |facts| {
                facts.in_scope = true;
                facts.factor_fresh = true;
            });
            let [project, installation] = ["default", ""].map(|project| {
                request.resource = Resource { project: project.to_owned(), environment: String::new(), tier: None };
                set.decide(&request)
            });
            assert_eq!(project, installation, "{kind:?} {action}");
        }
    }
}

fn facts() -> impl Strategy<Value = Facts> {
    let modes = prop_oneof![Just(Mode::Direct), Just(Mode::Proposed)];
    let directions = prop_oneof![Just(Direction::Still), Just(Direction::Lowering), Just(Direction::Widening)];
    let risks = prop_oneof![Just(RiskLevel::Low), Just(RiskLevel::Medium), Just(RiskLevel::High)];
    (modes, directions, risks, any::<[bool; 7]>(), 0..100_u32, 0..=100_u32, 0..6_u32).prop_map(
        |(mode, direction, risk_level, truths, changes_last_hour, risk_score, approvals)| {
            let [factor_fresh, in_scope, frozen, anonymised, unclaimed, own, approved_plan] = truths;
            Facts {
                mode,
                direction,
                factor_fresh,
                in_scope,
                frozen,
                changes_last_hour,
                anonymised,
                unclaimed,
                own,
                risk_score,
                risk_level,
                approvals,
                approved_plan,
                by_agent: false,
                drill_fresh: false,
            }
        },
    )
}

proptest! {
    /// Whatever an operator permits and whatever the facts: agents have nothing in production and decide nothing, and people
    /// write production at once only as release managers who lower with a fresh factor.
    #[test]
    fn the_limits_hold_under_all_facts(
        facts in facts(),
        action in proptest::sample::select(Action::ALL),
        kind in proptest::sample::select(&PrincipalKind::ALL[..]),
        tier in proptest::sample::select(&Tier::ALL[..]),
        roles in proptest::collection::btree_set(proptest::sample::select(&Role::ALL[..]), 0..4),
    ) {
        static OPEN: OnceLock<PolicySet> = OnceLock::new();
        let open = OPEN.get_or_init(|| with("@id(\"all\") permit (principal, action, resource);"));
        let roles: Vec<Role> = roles.into_iter().collect();
        let mut request = by(kind, &roles, action, tier);
        request.facts = facts.clone();
        let allowed = open.decide(&request).allowed;
        let writes = matches!(action.group(), Group::Edit | Group::Delete);
        if allowed {
            prop_assert!(!(kind == Agent && tier == Tier::Production));
            prop_assert!(!matches!(action, Action::ApproveRequest | Action::RejectRequest) || kind == Human);
            prop_assert!(action != Action::ApproveRequest || !facts.own);
            prop_assert!(!matches!(kind, Agent | Service | Application) || facts.in_scope);
            if kind == Human && tier == Tier::Production && writes && facts.mode == Mode::Direct {
                prop_assert!(facts.direction == Direction::Lowering && facts.factor_fresh);
                prop_assert!(roles.contains(&ReleaseManager) && action.group() == Group::Edit);
            }
            if action == Action::ApplyRequest && tier == Tier::Production {
                let needed = match facts.risk_level {
                    RiskLevel::Low => 0,
                    RiskLevel::Medium => 1,
                    RiskLevel::High => 2,
                };
                prop_assert!(facts.approvals >= needed);
            }
        }
        prop_assert!(allowed || !PolicySet::builtin_allows(&request));
    }
}

impl PolicySet {
    /// Whether the built-in policies alone allow it.
    fn builtin_allows(request: &Request) -> bool {
        static BUILTIN: OnceLock<PolicySet> = OnceLock::new();
        BUILTIN.get_or_init(PolicySet::builtin).decide(request).allowed
    }
}
