//! The release engine: every second it looks at each release under way, decides, and submits what is due through the one write
//! path. What it keeps in memory it can do without: after a restart it goes on from the journaled state.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use guidon_sdk::protocol::{Directive, MAX_DIRECTIVES};
use parking_lot::Mutex;

use super::edit::ReleaseEdit;
use super::guard::plan::Action;
use super::guard::restraint::{Permit, RestraintLimits};
use super::ill::{Ill, ill};
use super::live::{Arms, Live, Receipts, ReleaseWatch};
use super::next::{Seen, may_route_away, may_take_back, next, waiting};
use super::release::Release;
use super::watching::Watching;
use crate::assignments::Origin;
use crate::changes::{Author, ChangeDraft, ChangeService, Instruction};
use crate::clock::Clock;
use crate::environments::Tier;
use crate::metrics::{MetricsHub, WatchKey};
use crate::push::DirectiveSource;
use crate::state::{Project, World};

/// Milliseconds past a second's beginning at which the one before it is decided on: by then nearly all of its windows have come,
/// and later ones count in the next second.
pub const LOOK_AT_MS: u64 = 250;

/// Seconds between two questions to an external guardrail.
pub const ASK_EVERY: u64 = 10;

/// The longest that an external guardrail may take to answer.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// A clock that goes back by more than this many milliseconds was set.
const CLOCK_STEP_MS: u64 = 2_000;

/// Milliseconds for which a refused edit is not tried again.
const RETRY_AFTER_MS: u64 = 10_000;

/// Connected SDKs, as releases need them.
pub trait Connections: Send + Sync + 'static {
    /// Who has taken in `revision`, which was made at `made_at` (milliseconds since 1970).
    fn receipts(&self, project: &str, environment: &str, revision: u64, made_at: u64) -> Receipts;

    /// Replaces the directives of an instance.
    fn direct(&self, project: &str, environment: &str, instance: &str, directives: &[Directive]);

    /// Since when an instance is connected, in milliseconds since 1970; none if it is not.
    fn connected_since(&self, project: &str, environment: &str, instance: &str) -> Option<u64>;
}

/// Answers the queries of external guardrails.
pub trait Monitor: Send + Sync + 'static {
    /// The number that `query` answers now, or why there is none.
    fn value<'a>(&'a self, query: &'a str) -> BoxFuture<'a, Result<f64, String>>;
}

/// An instance that was routed away, to be healed.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// Key of the project.
    pub project: String,
    /// Key of the environment.
    pub environment: String,
    /// Key of the flag.
    pub flag: String,
    /// Identifier of the incident.
    pub incident: String,
    /// The instance.
    pub instance: String,
    /// The healing action that the plan names, if any.
    pub action: Option<String>,
    /// Until when it is routed away, in milliseconds since 1970.
    pub until: u64,
    /// What was seen of it.
    pub ill: Ill,
}

/// Heals instances.
pub trait Healer: Send + Sync + 'static {
    /// Takes a case on, and returns at once. What comes of it goes into the incident.
    fn take(&self, case: Case);
}

/// What a [`ReleaseEngine`] is made of.
pub struct EngineParts {
    /// The write path, and the state.
    pub changes: Arc<ChangeService>,
    /// What instances count.
    pub metrics: Arc<MetricsHub>,
    /// Connected SDKs.
    pub connections: Arc<dyn Connections>,
    /// Other monitoring, if the operator names one.
    pub monitor: Option<Arc<dyn Monitor>>,
    /// Heals instances that are routed away, if the operator lets it.
    pub healer: Option<Arc<dyn Healer>>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// How often the machine may act.
    pub limits: RestraintLimits,
}

/// Project, environment and flag.
type Place = (String, String, String);

/// What is kept of a release under way.
struct Held {
    watching: Watching,
    /// Instances that were told to stay away when last looked at.
    routed: BTreeSet<String>,
    /// Edits that were refused are not tried before this time.
    not_before: u64,
}

/// The release engine.
pub struct ReleaseEngine {
    parts: EngineParts,
    held: Mutex<HashMap<Place, Arc<Mutex<Held>>>>,
    asked: AtomicU64,
    /// When it looked last, in milliseconds since 1970.
    looked: AtomicU64,
}

/// What to do about one release.
struct Due {
    edit: ReleaseEdit,
    case: Option<Case>,
}

impl ReleaseEngine {
    /// An engine that knows of no release yet.
    #[must_use]
    pub fn new(parts: EngineParts) -> Self {
        Self { parts, held: Mutex::default(), asked: AtomicU64::new(0), looked: AtomicU64::new(0) }
    }

    /// Looks at every release under way at `now` (milliseconds since 1970), and does what is due.
    pub async fn look(&self, now: u64) {
        let world = self.parts.changes.world();
        self.forget_ended(&world);
        let stepped_back = now + CLOCK_STEP_MS < self.looked.swap(now, Ordering::Relaxed);
        if stepped_back {
            tracing::warn!("the server's clock was set back: releases are watched anew from now on");
            self.asked.store(0, Ordering::Relaxed);
        }
        let ask = now / 1_000 >= self.asked.load(Ordering::Relaxed) + ASK_EVERY;
        if ask {
            self.asked.store(now / 1_000, Ordering::Relaxed);
        }
        let mut due = Vec::new();
        for (project, release) in active(&world) {
            let Some(held) = self.held(project, release, now) else { continue };
            if stepped_back {
                // Seconds that were read already would come again, and none be read until the old time is reached.
                let key = key(&project.key, &release.environment, &release.flag);
                self.parts.metrics.begin_step(&key, release.step_revision, now);
            }
            if ask {
                self.ask(&held, release);
            }
            if let Some(found) = self.decide(project, release, &held, now) {
                due.push((project.key.clone(), release.clone(), held, found));
            }
        }
        join_all(due.into_iter().map(|(project, release, held, due)| self.carry_out(project, release, held, due)))
            .await;
    }

    /// Lets go of releases that are over.
    fn forget_ended(&self, world: &World) {
        let mut gone = Vec::new();
        self.held.lock().retain(|place, held| {
            let (project, environment, flag) = place;
            let release = world.projects.get(project).and_then(|project| project.release(environment, flag));
            let stays =
                release.is_some_and(|release| release.state.is_active() && release.id == held.lock().watching.id());
            if !stays {
                gone.push((place.clone(), std::mem::take(&mut held.lock().routed)));
            }
            stays
        });
        for ((project, environment, flag), routed) in gone {
            let current = world.projects.get(&project).and_then(|of| of.release(&environment, &flag));
            if !current.is_some_and(|release| release.state.is_active()) {
                self.parts.metrics.unwatch(&key(&project, &environment, &flag));
            }
            for instance in routed {
                self.direct(world, &project, &environment, &instance);
            }
        }
    }

    /// What is kept of a release, begun if need be, and following it to its present step.
    fn held(&self, project: &Project, release: &Arc<Release>, now: u64) -> Option<Arc<Mutex<Held>>> {
        let place = (project.key.clone(), release.environment.clone(), release.flag.clone());
        let key = key(&project.key, &release.environment, &release.flag);
        let known = self.held.lock().get(&place).cloned();
        if let Some(held) = known {
            if held.lock().watching.follow(release) {
                // Windows of earlier revisions are those of the step before.
                self.parts.metrics.begin_step(&key, release.step_revision, now);
            }
            return Some(held);
        }
        let watching = Watching::new(release)?;
        if let Err(error) = self.parts.metrics.watch(&key, watching.spec(release), now) {
            tracing::warn!(flag = release.flag, %error, "a release cannot be watched: it does not advance");
            return None;
        }
        let held = Arc::new(Mutex::new(Held { watching, routed: BTreeSet::new(), not_before: 0 }));
        self.held.lock().insert(place, Arc::clone(&held));
        Some(held)
    }

    /// Asks other monitoring, in the background: its answer counts when it comes.
    fn ask(&self, held: &Arc<Mutex<Held>>, release: &Arc<Release>) {
        if release.plan.external.is_empty() {
            return;
        }
        let (held, release, monitor) = (Arc::clone(held), Arc::clone(release), self.parts.monitor.clone());
        tokio::spawn(async move {
            for (index, external) in release.plan.external.iter().enumerate() {
                let answer = match &monitor {
                    None => Err("no monitoring is configured: serve with --prometheus-url".to_owned()),
                    Some(monitor) => match tokio::time::timeout(ANSWER_WITHIN, monitor.value(&external.query)).await {
                        Ok(answer) => answer,
                        Err(_) => Err(format!("no answer within {} seconds", ANSWER_WITHIN.as_secs())),
                    },
                };
                held.lock().watching.answered(external, index, answer);
            }
        });
    }

    /// Reads the seconds that are over and says what is due.
    fn decide(&self, project: &Project, release: &Arc<Release>, held: &Arc<Mutex<Held>>, now: u64) -> Option<Due> {
        let key = key(&project.key, &release.environment, &release.flag);
        let mut held = held.lock();
        self.route(project, release, &mut held, &key, now);
        let watching = &mut held.watching;
        self.parts.metrics.advance(&key, now, |second, series, gaps| watching.observe(release, second, series, gaps));
        let asked = held.watching.decision().map_or(Action::Observe, |decision| decision.action);
        if asked >= Action::RollBack
            && let Some(case) = self.ill_instance(project, release, &key, now)
        {
            // From now on: what it sends until it is told would count against the release in the next second.
            let mut routed = held.routed.clone();
            routed.extend(case.case.iter().map(|case| case.instance.clone()));
            self.parts.metrics.exclude(&key, routed);
            return Some(case);
        }
        let receipts = self.receipts(project, release);
        let seen = seen(project, release, &held.watching, &receipts, now);
        let limits = self.parts.limits;
        let edit = next(release, &seen, || may_take_back(project, limits, &release.id, now))?;
        // What takes a release back is tried every second, whatever was refused before.
        let is_back = matches!(edit, ReleaseEdit::RollBackRelease { .. });
        (is_back || now >= held.not_before).then_some(Due { edit, case: None })
    }

    /// Where the failures are those of a few instances, they are routed away, and the release stays.
    fn ill_instance(&self, project: &Project, release: &Release, key: &WatchKey, now: u64) -> Option<Due> {
        let healing = &release.plan.healing;
        if !healing.route_away {
            return None;
        }
        let routed = release.routed_at(now);
        let mut found = ill(&self.parts.metrics.instances(key, now));
        found.retain(|ill| !routed.contains(ill.instance.as_str()));
        let worst = found.into_iter().next()?;
        if may_route_away(project, self.parts.limits, &worst.instance, now) != Permit::Granted {
            return None;
        }
        let until = now + healing.seconds * 1_000;
        // The operator's actions act on real hosts. Where an AI agent may start releases they run for nobody.
        let tier =
            project.environments.get(&release.environment).map_or(Tier::Development, |environment| environment.tier);
        let action = healing.action.clone().filter(|_| tier >= Tier::Staging);
        let mut reason = worst.reason.clone();
        if action.is_none() && healing.action.is_some() {
            reason.push_str("; healing actions run in staging and production only");
        }
        let edit = ReleaseEdit::RouteInstance {
            flag: release.flag.clone(),
            release: release.id.clone(),
            instance: worst.instance.clone(),
            until,
            reason,
            evidence: serde_json::to_value(&worst).unwrap_or_default(),
            incident: String::new(),
        };
        let case = Case {
            project: project.key.clone(),
            environment: release.environment.clone(),
            flag: release.flag.clone(),
            incident: String::new(),
            instance: worst.instance.clone(),
            action,
            until,
            ill: worst,
        };
        Some(Due { edit, case: Some(case) })
    }

    /// Tells instances that came to be routed away, or no longer are.
    fn route(&self, project: &Project, release: &Release, held: &mut Held, key: &WatchKey, now: u64) {
        let routed: BTreeSet<String> = release.routed_at(now).into_iter().map(str::to_owned).collect();
        if routed == held.routed {
            return;
        }
        self.parts.metrics.exclude(key, routed.clone());
        for instance in routed.symmetric_difference(&held.routed) {
            self.direct(&self.parts.changes.world(), &project.key, &release.environment, instance);
        }
        held.routed = routed;
    }

    fn direct(&self, world: &World, project: &str, environment: &str, instance: &str) {
        let directives = directives(world, project, environment, instance, self.parts.clock.now_ms());
        self.parts.connections.direct(project, environment, instance, &directives);
    }

    fn receipts(&self, project: &Project, release: &Release) -> Receipts {
        let (revision, made_at) = (release.step_revision, release.step_at);
        self.parts.connections.receipts(&project.key, &release.environment, revision, made_at)
    }

    async fn carry_out(&self, project: String, release: Arc<Release>, held: Arc<Mutex<Held>>, due: Due) {
        let change = ChangeDraft {
            project: project.clone(),
            environment: Some(release.environment.clone()),
            instructions: vec![Instruction::Release(Box::new(due.edit))],
            ..ChangeDraft::default()
        };
        let kind = change.instructions.first().map(Instruction::kind).unwrap_or_default();
        match self.parts.changes.submit(&Author::system(), change).await {
            Ok(outcome) => {
                tracing::info!(flag = release.flag, environment = release.environment, kind, "a release went on");
                if due.case.is_some() {
                    held.lock().watching.begin_run(&release);
                }
                let instructions = outcome.entry.iter().flat_map(|entry| &entry.instructions);
                let mut opened = instructions.filter_map(|it| match it.edit() {
                    Instruction::Release(edit) => edit.incident().map(str::to_owned),
                    _ => None,
                });
                if let (Some(case), Some(incident), Some(healer)) = (due.case, opened.next_back(), &self.parts.healer) {
                    healer.take(Case { incident, ..case });
                }
            }
            Err(error) => {
                let key = key(&project, &release.environment, &release.flag);
                self.parts.metrics.exclude(&key, held.lock().routed.clone());
                held.lock().not_before = self.parts.clock.now_ms() + RETRY_AFTER_MS;
                tracing::warn!(flag = release.flag, environment = release.environment, kind, %error, "a release could not go on");
            }
        }
    }
}

/// Every release under way.
fn active(world: &World) -> impl Iterator<Item = (&Arc<Project>, &Arc<Release>)> {
    let all =
        world.projects.values().flat_map(|project| project.releases.values().map(move |release| (project, release)));
    all.filter(|(_, release)| release.state.is_active())
}

fn key(project: &str, environment: &str, flag: &str) -> WatchKey {
    WatchKey { origin: Origin { project: project.into(), environment: environment.into() }, flag: flag.to_owned() }
}

fn seen<'a>(
    project: &Project,
    release: &Release,
    watching: &'a Watching,
    receipts: &'a Receipts,
    now: u64,
) -> Seen<'a> {
    let environment = project.environments.get(&release.environment);
    let config = project.flags.get(&release.flag).and_then(|flag| flag.stored.environments.get(&release.environment));
    Seen {
        now,
        decision: watching.decision(),
        healthy_seconds: watching.healthy_seconds(),
        sample: watching.sample(),
        receipts,
        frozen: environment.is_some_and(|environment| environment.frozen_by(now).is_some()),
        on: config.is_some_and(|config| config.on),
    }
}

/// What an instance is to do otherwise than its peers, by all releases of its environment.
#[must_use]
pub fn directives(world: &World, project: &str, environment: &str, instance: &str, now: u64) -> Vec<Directive> {
    let Some(project) = world.projects.get(project) else { return Vec::new() };
    let here =
        project.releases.values().filter(|release| release.environment == environment && release.state.is_active());
    let routed = here.filter_map(|release| {
        let until = release.routed.get(instance).map(|routed| routed.until).filter(|until| *until > now)?;
        Some((release.flag.clone(), until - now))
    });
    let by_flag: BTreeMap<String, u64> = routed.collect();
    by_flag.into_iter().take(MAX_DIRECTIVES).map(|(flag, for_ms)| Directive { flag, for_ms }).collect()
}

/// Knows the directives of instances that connect, from the state.
#[derive(Clone, Copy, Debug, Default)]
pub struct RoutedInstances;

impl DirectiveSource for RoutedInstances {
    fn directives(&self, world: &World, project: &str, environment: &str, instance: &str, now: u64) -> Vec<Directive> {
        directives(world, project, environment, instance, now)
    }
}

impl ReleaseWatch for ReleaseEngine {
    fn live(&self, project: &str, environment: &str, flag: &str) -> Option<Live> {
        let world = self.parts.changes.world();
        let project = world.projects.get(project)?;
        let release = project.release(environment, flag)?;
        let place = (project.key.clone(), environment.to_owned(), flag.to_owned());
        let held = self.held.lock().get(&place).cloned()?;
        let held = held.lock();
        let watching = &held.watching;
        if watching.id() != release.id {
            return None;
        }
        let (now, receipts) = (self.parts.clock.now_ms(), self.receipts(project, release));
        let seen = seen(project, release, watching, &receipts, now);
        let sample = seen.sample;
        Some(Live {
            release: release.id.clone(),
            second: seen.decision.map_or(0, |decision| decision.second),
            waiting: waiting(release, &seen),
            guardrails: watching.guardrails(release),
            verdicts: seen.decision.map(|decision| decision.verdicts.clone()).unwrap_or_default(),
            units: Arms { treatment: sample.treatment, control: sample.control },
            learned: watching.learned(),
            receipts,
            routed: held.routed.iter().cloned().collect(),
        })
    }
}
