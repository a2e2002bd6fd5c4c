//! `cargo bench -p guidon-server --bench policy`: what a decision costs.
//!
//! Beside a floor written by hand: look the principal up among 10,000, its roles and the action's group in a table. A program
//! without policies would do no less. A decision is measured from the request to the answer; looking the principal up in
//! the directory is part of making the request, and is measured apart.
#![allow(clippy::print_stdout, reason = "a benchmark prints its table")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hint::black_box;
use std::time::Instant;

use guidon_server::environments::Tier;
use guidon_server::policy::{
    Action, Direction, Facts, Mode, PolicySet, PrincipalKind, Request, Resource, RiskLevel, Role, Subject,
};

const PRINCIPALS: usize = 10_000;
const DECISIONS: usize = 20_000;

fn main() {
    // `cargo test --benches` runs the binary without `--bench`: then it only has to start.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let start = Instant::now();
    let builtin = PolicySet::builtin();
    let first = start.elapsed();
    let start = Instant::now();
    let set = PolicySet::with(&own_files()).expect("the files are sound");
    let second = start.elapsed();
    println!(
        "policies in force      {:>6} built in, {} of the operator's",
        builtin.policies().count(),
        own_count(&set)
    );
    println!("reading them           {first:>10.1?} the first time, {second:.1?} with the operator's");
    println!("principals             {PRINCIPALS:>6}");
    println!("decisions              {DECISIONS:>6}");

    let many = directory(PRINCIPALS);
    let few = directory(10);
    for (what, directory) in [("10 principals", &few), ("10,000 principals", &many)] {
        let requests = requests(directory);
        let mut times = measure(&requests, |request| set.decide(request).allowed);
        print_line(&format!("decide, {what}"), &mut times);
    }
    let requests = requests(&many);
    let allowed = requests.iter().filter(|request| set.decide(request).allowed).count();
    println!("allowed                {allowed:>6} of {DECISIONS}");
    let mut alone = measure(&requests, |request| builtin.decide(request).allowed);
    print_line("decide, built-in policies alone", &mut alone);
    let mut times = measure(&requests, |request| set.decide(request).allowed);
    let table = table();
    let mut floor = measure(&requests, |request| by_hand(&many, &table, request));
    print_line("floor by hand", &mut floor);
    println!("ratio of medians       {:>8.1}", middle(&mut times) / middle(&mut floor));
    for kind in PrincipalKind::ALL {
        let some: Vec<Request> = requests.iter().filter(|request| request.subject.kind == kind).cloned().collect();
        if !some.is_empty() {
            print_line(
                &format!("decide, {}", kind.as_str()),
                &mut measure(&some, |request| set.decide(request).allowed),
            );
        }
    }
}

/// Microseconds of each call.
fn measure(requests: &[Request], call: impl Fn(&Request) -> bool) -> Vec<f64> {
    for request in requests.iter().take(2_000) {
        black_box(call(request));
    }
    requests
        .iter()
        .map(|request| {
            let start = Instant::now();
            black_box(call(black_box(request)));
            start.elapsed().as_nanos() as f64 / 1_000.0
        })
        .collect()
}

fn middle(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn print_line(what: &str, times: &mut [f64]) {
    let median = middle(times);
    let p99 = times[times.len() * 99 / 100];
    println!("{what:<34} median {median:>8.2} us   p99 {p99:>8.2} us");
}

/// Policies as an operator might add them: three teams, each with limits of its own.
fn own_files() -> BTreeMap<String, String> {
    (0..3)
        .map(|team| {
            let text = format!(
                "@id(\"four-eyes\")\n\
                 forbid (principal, action == Action::\"applyRequest\", resource in Project::\"project-{team}\")\n\
                 when {{ resource in Tier::\"production\" && context.approvals < 1 }};\n\
                 @id(\"no-bots\")\n\
                 forbid (principal is Agent, action in Action::\"edit\", resource in Project::\"project-{team}\")\n\
                 when {{ principal.id like \"trial-*\" }};\n\
                 @id(\"leads\")\n\
                 permit (principal == Human::\"p{team}\", action in Action::\"read\", resource);\n"
            );
            (format!("team-{team}.cedar"), text)
        })
        .collect()
}

fn own_count(set: &PolicySet) -> usize {
    set.policies().filter(|info| !info.builtin).count()
}

type Directory = HashMap<String, Subject>;

/// So many principals of all kinds with all roles.
fn directory(size: usize) -> Directory {
    (0..size)
        .map(|number| {
            let kind = match number % 10 {
                0..6 => PrincipalKind::Human,
                6 | 7 => PrincipalKind::Agent,
                8 => PrincipalKind::Service,
                _ => PrincipalKind::System,
            };
            let roles: BTreeSet<Role> = match kind {
                PrincipalKind::Human => (0..1 + number % 3).map(|more| Role::ALL[(number + more * 3) % 7]).collect(),
                _ => BTreeSet::new(),
            };
            let id = format!("p{number}");
            let owner = (kind == PrincipalKind::Agent).then(|| "p1".to_owned());
            (id.clone(), Subject { id, kind, roles, owner })
        })
        .collect()
}

/// Mixed requests: all actions, tiers and circumstances, in an order without a pattern.
fn requests(directory: &Directory) -> Vec<Request> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    (0..DECISIONS)
        .map(|_| {
            let tier = Tier::ALL[next(4)];
            let facts = Facts {
                mode: [Mode::Direct, Mode::Proposed][next(2)],
                direction: [Direction::Still, Direction::Lowering, Direction::Widening][next(3)],
                factor_fresh: next(2) == 0,
                in_scope: next(10) > 0,
                frozen: next(20) == 0,
                changes_last_hour: next(80) as u32,
                own: next(2) == 0,
                risk_level: [RiskLevel::Low, RiskLevel::Medium, RiskLevel::High][next(3)],
                approvals: next(3) as u32,
                approved_plan: next(2) == 0,
                ..Facts::default()
            };
            Request {
                subject: directory[&format!("p{}", next(directory.len()))].clone(),
                action: Action::ALL[next(Action::ALL.len())],
                resource: Resource {
                    project: format!("project-{}", next(20)),
                    environment: tier.as_str().to_owned(),
                    tier: Some(tier),
                },
                facts,
            }
        })
        .collect()
}

type Table = HashMap<(Action, Tier), BTreeSet<Role>>;

fn table() -> Table {
    let roles = |number: usize| Role::ALL.into_iter().skip(number % 5).collect();
    let keys = Action::ALL.iter().flat_map(|action| Tier::ALL.map(|tier| (*action, tier)));
    keys.enumerate().map(|(number, key)| (key, roles(number))).collect()
}

fn by_hand(directory: &Directory, table: &Table, request: &Request) -> bool {
    let Some(subject) = directory.get(&request.subject.id) else { return false };
    let Some(tier) = request.resource.tier else { return false };
    table.get(&(request.action, tier)).is_some_and(|roles| roles.intersection(&subject.roles).next().is_some())
}
