//! The five workloads, as definitions for the evaluator and as data for the floors.

use std::hint::black_box;

use guidon_sdk::Context;
use guidon_sdk::eval::{Ruleset, evaluate};
use serde_json::{Value, json};

use crate::floors::{self, FloorContext, FloorFlag, FloorMap, FloorValue};

pub(crate) const USERS: usize = 10_000;
const FLAGS: usize = 2_000;
const COUNTRIES: [&str; 6] = ["US", "CA", "GB", "DE", "FR", "JP"];

/// One user's attributes.
struct User {
    key: String,
    country: &'static str,
    version: String,
    plan: &'static str,
    age: f64,
    email: String,
}

fn users() -> impl Iterator<Item = User> {
    (0..USERS).map(|number| User {
        key: format!("user-{number}"),
        country: COUNTRIES[number % COUNTRIES.len()],
        version: format!("2.{}.{}", number % 7, number % 11),
        plan: ["free", "pro", "enterprise"][number % 3],
        age: (18 + number % 60) as f64,
        email: format!("user-{number}@example.com"),
    })
}

fn guidon_context(user: &User) -> Context<'_> {
    Context::new(user.key.as_str())
        .with("plan", user.plan)
        .with("country", user.country)
        .with("age", user.age)
        .with("email", user.email.as_str())
        .with("appVersion", user.version.as_str())
        .with("beta", true)
}

/// The same, owning its strings but for the names, as `FloorContext::into_owned` does.
fn owned_context(user: &User) -> Context<'static> {
    Context::new(user.key.clone())
        .with("plan", user.plan.to_owned())
        .with("country", user.country.to_owned())
        .with("age", user.age)
        .with("email", user.email.clone())
        .with("appVersion", user.version.clone())
        .with("beta", true)
}

fn floor_context(user: &User) -> FloorContext<'_> {
    let attributes = vec![
        ("plan", FloorValue::Text(user.plan.into())),
        ("country", FloorValue::Text(user.country.into())),
        ("age", FloorValue::Number(user.age)),
        ("email", FloorValue::Text(user.email.as_str().into())),
        ("appVersion", FloorValue::Text(user.version.as_str().into())),
        ("beta", FloorValue::Flag(true)),
    ];
    FloorContext { key: user.key.as_str().into(), attributes }
}

fn boolean(key: &str, config: Value) -> Value {
    json!({"key": key, "kind": "boolean", "variations": [{"key": "on", "value": true}, {"key": "off", "value": false}], "config": config})
}

fn w1_flag(key: &str) -> Value {
    boolean(key, json!({"on": true, "offVariation": "off", "fallthrough": {"variation": "on"}}))
}

pub(crate) fn w2_flag(key: &str) -> Value {
    let rule = json!({"id": "r1", "clauses": [
            {"attribute": "country", "op": "in", "values": ["US", "CA", "GB"]},
            {"attribute": "appVersion", "op": "semverGreaterThanOrEqual", "values": ["2.3.0"]}],
        "serve": {"rollout": {"weights": {"off": 50_000, "on": 50_000}, "bucketBy": "targetingKey", "salt": format!("salt-{key}"),
            "allocation": [["off", 0, 50_000], ["on", 50_000, 100_000]]}}});
    boolean(key, json!({"on": true, "offVariation": "off", "rules": [rule], "fallthrough": {"variation": "off"}}))
}

/// Nineteen rules that do not match, the tenth of them a segment, and one that does.
fn w3_flag(key: &str) -> Value {
    let rules: Vec<Value> = (1..=20)
        .map(|number| {
            let clause = match number {
                10 => json!({"op": "segment", "values": ["thousand"]}),
                20 => json!({"attribute": "beta", "op": "in", "values": [true]}),
                _ => match number % 3 {
                    0 => json!({"attribute": "country", "op": "in", "values": ["AA", "BB", format!("C{number}")]}),
                    1 => json!({"attribute": "age", "op": "greaterThan", "values": [100 + number]}),
                    _ => json!({"attribute": "email", "op": "endsWith", "values": [format!("@example-{number}.org")]}),
                },
            };
            json!({"id": format!("r{number}"), "clauses": [clause], "serve": {"variation": "on"}})
        })
        .collect();
    boolean(key, json!({"on": true, "offVariation": "off", "rules": rules, "fallthrough": {"variation": "off"}}))
}

pub(crate) fn compile(flags: Vec<Value>, segments: Vec<Value>) -> Ruleset {
    Ruleset::compile(
        flags.into_iter().map(|flag| serde_json::from_value(flag).expect("a definition")),
        segments.into_iter().map(|segment| serde_json::from_value(segment).expect("a segment")),
    )
}

fn segment_keys() -> Vec<String> {
    (0..1_000).map(|number| format!("member-{number}")).collect()
}

pub(crate) struct Data {
    users: Vec<User>,
    /// Ready contexts, owned as a server would hold them.
    guidon: Vec<Context<'static>>,
    floor: Vec<FloorContext<'static>>,
    one: Ruleset,
    one_floor: FloorMap,
    many: Ruleset,
    many_floor: FloorMap,
    /// Flags to ask for, in random order.
    order: Vec<String>,
}

impl Data {
    pub(crate) fn new() -> Self {
        let users: Vec<User> = users().collect();
        let guidon = users.iter().map(owned_context).collect();
        let floor = users.iter().map(|user| floor_context(user).into_owned()).collect();
        let segment = json!({"key": "thousand", "included": segment_keys()});
        let one = compile(vec![w1_flag("w1"), w2_flag("w2"), w3_flag("w3")], vec![segment]);
        let mut one_floor = FloorMap::default();
        one_floor.insert("w1".to_owned(), FloorFlag::plain());
        one_floor.insert("w2".to_owned(), FloorFlag::split("w2"));
        one_floor.insert("w3".to_owned(), FloorFlag::rules(segment_keys()));
        let (mut definitions, mut many_floor) = (Vec::new(), FloorMap::default());
        for number in 0..FLAGS {
            let key = format!("flag-number-{number}");
            let plain = number % 2 == 0;
            definitions.push(if plain { w1_flag(&key) } else { w2_flag(&key) });
            many_floor.insert(key.clone(), if plain { FloorFlag::plain() } else { FloorFlag::split(&key) });
        }
        let many = compile(definitions, vec![]);
        let mut state = 42_u64;
        let order = (0..65_536)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                format!("flag-number-{}", (state >> 33) as usize % FLAGS)
            })
            .collect();
        Self { users, guidon, floor, one, one_floor, many, many_floor, order }
    }

    /// Hands out each workload: its name, the floor and the evaluator, each doing as many calls as it is told.
    pub(crate) fn each(&self, mut run: impl FnMut(&str, &dyn Fn(usize), &dyn Fn(usize))) {
        self.agree();
        let user = |call: usize| call % USERS;
        let run_one = |flag: &'static str| {
            let floor = move |calls| {
                for call in 0..calls {
                    black_box(floors::evaluate(&self.one_floor, black_box(flag), &self.floor[user(call)]));
                }
            };
            let guidon = move |calls| {
                for call in 0..calls {
                    black_box(evaluate(&self.one, black_box(flag), &self.guidon[user(call)]));
                }
            };
            (floor, guidon)
        };
        let (floor, guidon) = run_one("w1");
        run("W1 on, no rules", &floor, &guidon);
        let (floor, guidon) = run_one("w2");
        run("W2 one rule, 50 % rollout, 10,000 users", &floor, &guidon);
        let (floor, guidon) = run_one("w3");
        run("W3 20 rules, the last matches", &floor, &guidon);
        let floor = |calls| {
            for call in 0..calls {
                let context = floor_context(&self.users[user(call)]);
                black_box(floors::evaluate(&self.one_floor, black_box("w2"), &context));
            }
        };
        let guidon = |calls| {
            for call in 0..calls {
                let context = guidon_context(&self.users[user(call)]);
                black_box(evaluate(&self.one, black_box("w2"), &context));
            }
        };
        run("W4 W2 with the context built for each call", &floor, &guidon);
        let floor = |calls| {
            for call in 0..calls {
                let flag = &self.order[call % self.order.len()];
                black_box(floors::evaluate(&self.many_floor, flag, &self.floor[user(call)]));
            }
        };
        run("W5 2,000 flags, a random one each time", &floor, &|calls| self.w5_guidon(calls));
    }

    pub(crate) fn w5_guidon(&self, calls: usize) {
        for call in 0..calls {
            let flag = &self.order[call % self.order.len()];
            black_box(evaluate(&self.many, flag, &self.guidon[call % USERS]));
        }
    }

    /// Floor and evaluator must answer alike, or the comparison means nothing.
    fn agree(&self) {
        for (guidon, floor) in self.guidon.iter().zip(&self.floor) {
            for flag in ["w1", "w2", "w3"] {
                let expected = floors::evaluate(&self.one_floor, flag, floor).expect("a flag").value;
                let found = evaluate(&self.one, flag, guidon).value().and_then(Value::as_bool);
                assert_eq!(found, Some(expected), "{flag}");
            }
        }
    }
}
