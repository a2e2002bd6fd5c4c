//! Making few events of many that are alike, without losing count.
//!
//! The first event of a kind, actor, origin, project, environment, flag, action, credential and build passes at once; the rest of
//! the following window becomes one event with a count. What comes from too many places at once is no longer told apart:
//! beyond a rate, events of one kind become one, with a count. Each kind has a rate of its own, so that a flood of refused
//! credentials does not hide who signed in. No clock is read here.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::{Deployment, Event, EventKind};

/// The origin of an event that stands for many that were not told apart.
pub const MANY_ORIGINS: &str = "many";

/// What an event says that stands for many that were not told apart.
const FLOOD_DETAIL: &str = "too many at once to be told apart";

/// How much is told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoalesceLimits {
    /// How long after the first of several like it the others are gathered, in milliseconds. Default 60,000.
    pub window_ms: u64,
    /// Events of one kind, told apart, that may begin a window each second, lastingly. Default 50.
    pub per_second: u32,
    /// How many may at once. Default 500.
    pub burst: u32,
    /// Windows open at once; beyond it events are not told apart. Default 10,000.
    pub max_windows: usize,
}

impl Default for CoalesceLimits {
    fn default() -> Self {
        Self { window_ms: 60_000, per_second: 50, burst: 500, max_windows: 10_000 }
    }
}

/// What must be the same for events to be alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Likeness {
    kind: EventKind,
    actor_id: Option<String>,
    origin_id: String,
    project: Option<String>,
    environment: Option<String>,
    flag: Option<String>,
    action: Option<String>,
    credential: Option<String>,
    deployment: Option<Deployment>,
}

impl Likeness {
    fn of(event: &Event) -> Self {
        Self {
            kind: event.kind,
            actor_id: event.actor_id.clone(),
            origin_id: event.origin_id.clone(),
            project: event.project.clone(),
            environment: event.environment.clone(),
            flag: event.flag.clone(),
            action: event.action.clone(),
            credential: event.credential.clone(),
            deployment: event.deployment.clone(),
        }
    }
}

/// Tokens of one kind, in thousandths.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    milli: u64,
    at: u64,
}

impl Bucket {
    fn take(&mut self, limits: &CoalesceLimits, now: u64) -> bool {
        let elapsed = now.saturating_sub(self.at);
        let full = u64::from(limits.burst) * 1_000;
        self.milli = self.milli.saturating_add(elapsed.saturating_mul(u64::from(limits.per_second))).min(full);
        self.at = now;
        let has = self.milli >= 1_000;
        if has {
            self.milli -= 1_000;
        }
        has
    }
}

/// Events of one kind that are not told apart.
#[derive(Debug)]
struct Flood {
    event: Event,
    ends_at: u64,
}

/// Gathers events that are alike.
#[derive(Debug)]
pub struct Coalescer {
    limits: CoalesceLimits,
    /// What was gathered behind the first of each window, nothing yet where none.
    windows: HashMap<Likeness, Option<Event>>,
    /// When each window ends. They are opened in the order in which they end.
    ends: VecDeque<(u64, Likeness)>,
    buckets: BTreeMap<EventKind, Bucket>,
    floods: BTreeMap<EventKind, Flood>,
}

impl Coalescer {
    /// A coalescer that has seen nothing.
    #[must_use]
    pub fn new(limits: CoalesceLimits) -> Self {
        Self {
            limits,
            windows: HashMap::new(),
            ends: VecDeque::new(),
            buckets: BTreeMap::new(),
            floods: BTreeMap::new(),
        }
    }

    /// Takes an event in at `now` (milliseconds since 1970); what is to be written now is put into `out`.
    pub fn push(&mut self, event: Event, now: u64, out: &mut Vec<Event>) {
        self.expire(now, out);
        let likeness = Likeness::of(&event);
        if let Some(gathered) = self.windows.get_mut(&likeness) {
            match gathered {
                Some(gathered) => add(gathered, event, out),
                None => *gathered = Some(event),
            }
            return;
        }
        let limits = self.limits;
        let full = Bucket { milli: u64::from(limits.burst) * 1_000, at: now };
        let is_told_apart = self.windows.len() < limits.max_windows
            && self.buckets.entry(event.kind).or_insert(full).take(&limits, now);
        if is_told_apart {
            self.windows.insert(likeness.clone(), None);
            self.ends.push_back((now.saturating_add(limits.window_ms), likeness));
            out.push(event);
        } else {
            self.flood(event, now, out);
        }
    }

    fn flood(&mut self, event: Event, now: u64, out: &mut Vec<Event>) {
        let mut event = event;
        // What was particular to this one would be taken for all of them.
        event = Event {
            count: event.count,
            detail: FLOOD_DETAIL.to_owned(),
            ..Event::new(event.at, event.kind, MANY_ORIGINS)
        };
        let ends_at = now.saturating_add(self.limits.window_ms);
        match self.floods.get_mut(&event.kind) {
            Some(flood) => add(&mut flood.event, event, out),
            None => {
                self.floods.insert(event.kind, Flood { event, ends_at });
            }
        }
    }

    /// Puts what was gathered in the windows that have ended at `now` into `out`.
    pub fn expire(&mut self, now: u64, out: &mut Vec<Event>) {
        // A clock that stepped back must not keep a window open for longer than one lasts.
        let is_over = |ends_at: u64| ends_at <= now || ends_at > now.saturating_add(self.limits.window_ms);
        while let Some((_, likeness)) = self.ends.pop_front_if(|(ends_at, _)| is_over(*ends_at)) {
            out.extend(self.windows.remove(&likeness).flatten());
        }
        let ended: Vec<EventKind> =
            self.floods.iter().filter(|(_, flood)| is_over(flood.ends_at)).map(|(kind, _)| *kind).collect();
        out.extend(ended.into_iter().filter_map(|kind| self.floods.remove(&kind)).map(|flood| flood.event));
    }

    /// Puts everything that was gathered into `out`, whether its window has ended or not.
    pub fn finish(&mut self, out: &mut Vec<Event>) {
        for (_, likeness) in self.ends.drain(..) {
            out.extend(self.windows.remove(&likeness).flatten());
        }
        self.windows.clear();
        out.extend(std::mem::take(&mut self.floods).into_values().map(|flood| flood.event));
    }

    /// When the next window ends in which something was gathered or may be; `None` while none is open.
    #[must_use]
    pub fn next_end(&self) -> Option<u64> {
        let window = self.ends.front().map(|(ends_at, _)| *ends_at);
        let flood = self.floods.values().map(|flood| flood.ends_at).min();
        window.into_iter().chain(flood).min()
    }

    /// Windows open now, floods included: what bounds the memory.
    #[must_use]
    pub fn open(&self) -> usize {
        self.windows.len() + self.floods.len()
    }
}

/// Adds `event` to `gathered`, which keeps what the later one says. A sum that does not fit is written out first.
fn add(gathered: &mut Event, event: Event, out: &mut Vec<Event>) {
    match gathered.count.checked_add(event.count) {
        Some(count) => *gathered = Event { at: gathered.at.max(event.at), count, ..event },
        None => out.push(std::mem::replace(gathered, event)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn event(kind: EventKind, origin: &str) -> Event {
        Event::new(1_000, kind, origin)
    }

    fn counts(events: &[Event]) -> Vec<u32> {
        events.iter().map(|event| event.count).collect()
    }

    #[test]
    fn the_first_passes_and_the_rest_follow_as_one() {
        let mut coalescer = Coalescer::new(CoalesceLimits::default());
        let mut out = Vec::new();
        for step in 0..10 {
            coalescer.push(event(EventKind::SignInFailed, "o-1"), 1_000 + step, &mut out);
        }
        assert_eq!(counts(&out), [1]);
        coalescer.expire(60_999, &mut out);
        assert_eq!(counts(&out), [1], "the window is not over");
        coalescer.expire(61_000, &mut out);
        assert_eq!(counts(&out), [1, 9]);
        assert_eq!((coalescer.open(), coalescer.next_end()), (0, None));
        coalescer.push(event(EventKind::SignInFailed, "o-1"), 61_001, &mut out);
        assert_eq!(counts(&out), [1, 9, 1], "a new window starts with an event that passes");
    }

    #[test]
    fn a_window_in_which_nothing_followed_ends_without_an_event() {
        let mut coalescer = Coalescer::new(CoalesceLimits::default());
        let mut out = Vec::new();
        coalescer.push(event(EventKind::SignedIn, "o-1"), 0, &mut out);
        coalescer.expire(100_000, &mut out);
        assert_eq!(counts(&out), [1]);
    }

    #[test]
    fn whatever_differs_is_told_apart() {
        let mut coalescer = Coalescer::new(CoalesceLimits::default());
        let mut out = Vec::new();
        let plain = event(EventKind::Refused, "o-1");
        let some = || Some("x".to_owned());
        let others = [
            Event { kind: EventKind::SignedIn, ..plain.clone() },
            Event { actor_id: some(), ..plain.clone() },
            Event { origin_id: "o-2".to_owned(), ..plain.clone() },
            Event { project: some(), ..plain.clone() },
            Event { environment: some(), ..plain.clone() },
            Event { flag: some(), ..plain.clone() },
            Event { action: some(), ..plain.clone() },
            Event { credential: some(), ..plain.clone() },
            Event { deployment: Some(Deployment::default()), ..plain.clone() },
            plain,
        ];
        let count = others.len();
        for other in others {
            coalescer.push(other, 0, &mut out);
        }
        assert_eq!(out.len(), count);
    }

    #[test]
    fn a_flood_of_one_kind_is_counted_and_hides_no_other_kind() {
        let mut coalescer = Coalescer::new(CoalesceLimits::default());
        let mut out = Vec::new();
        for number in 0..2_000 {
            coalescer.push(event(EventKind::CredentialRefused, &format!("o-{number}")), 5_000, &mut out);
        }
        assert_eq!(out.len(), 500);
        coalescer.push(event(EventKind::SignedIn, "o-1"), 5_000, &mut out);
        assert_eq!(out.len(), 501, "a sign-in passes though credentials flood");
        coalescer.push(event(EventKind::CredentialRefused, "later"), 6_000, &mut out);
        assert_eq!(out.last().map(|event| event.origin_id.as_str()), Some("later"), "50 a second pass again");
        out.clear();
        coalescer.expire(65_000, &mut out);
        assert_eq!(out.len(), 1, "{out:?}");
        assert_eq!(
            (out[0].count, out[0].origin_id.as_str(), out[0].kind),
            (1_500, MANY_ORIGINS, EventKind::CredentialRefused)
        );
    }

    #[test]
    fn a_sum_that_does_not_fit_becomes_two() {
        let mut coalescer = Coalescer::new(CoalesceLimits::default());
        let mut out = Vec::new();
        let large = Event { count: u32::MAX - 1, ..event(EventKind::Refused, "o") };
        for _ in 0..3 {
            coalescer.push(large.clone(), 0, &mut out);
        }
        coalescer.finish(&mut out);
        assert_eq!(counts(&out), [u32::MAX - 1; 3]);
    }

    #[test]
    fn a_clock_that_steps_back_ends_the_windows() {
        let mut coalescer = Coalescer::new(CoalesceLimits::default());
        let mut out = Vec::new();
        coalescer.push(event(EventKind::Refused, "o"), 10_000_000, &mut out);
        coalescer.push(event(EventKind::Refused, "o"), 10_000_000, &mut out);
        coalescer.expire(5_000, &mut out);
        assert_eq!(counts(&out), [1, 1]);
    }

    fn any_event() -> impl Strategy<Value = (Event, u64)> {
        let kinds = [EventKind::Refused, EventKind::SignedIn, EventKind::CredentialRefused];
        (0..3_usize, 0..40_u32, 0..3_u32, prop_oneof![9 => 1..5_u32, 1 => Just(u32::MAX)], 0..3_000_u64).prop_map(
            move |(kind, origin, flag, count, step)| {
                let mut event = Event::new(0, kinds[kind], format!("o-{origin}"));
                event.flag = (flag > 0).then(|| format!("f-{flag}"));
                event.count = count;
                (event, step)
            },
        )
    }

    proptest! {
        #[test]
        fn no_event_is_lost_or_made_up(
            events in vec(any_event(), 0..400),
            burst in 1..20_u32,
            per_second in 0..5_u32,
            max_windows in 1..60_usize,
        ) {
            let limits = CoalesceLimits { window_ms: 10_000, per_second, burst, max_windows };
            let mut coalescer = Coalescer::new(limits);
            let (mut now, mut out) = (0, Vec::new());
            let mut recorded: BTreeMap<EventKind, u64> = BTreeMap::new();
            for (event, step) in events {
                now += step;
                *recorded.entry(event.kind).or_default() += u64::from(event.count);
                coalescer.push(Event { at: now, ..event }, now, &mut out);
                prop_assert!(coalescer.open() <= max_windows + 3);
                prop_assert!(coalescer.next_end().is_none_or(|end| end > now && end <= now + limits.window_ms));
            }
            coalescer.finish(&mut out);
            prop_assert_eq!(coalescer.open(), 0);
            let mut written: BTreeMap<EventKind, u64> = BTreeMap::new();
            for event in &out {
                *written.entry(event.kind).or_default() += u64::from(event.count);
            }
            prop_assert_eq!(written, recorded);
        }

        #[test]
        fn the_rate_bounds_what_is_written(origins in vec(0..10_000_u32, 0..2_000), seconds in 1..20_u64) {
            let limits = CoalesceLimits { window_ms: 1_000_000, per_second: 5, burst: 50, max_windows: 100_000 };
            let mut coalescer = Coalescer::new(limits);
            let mut out = Vec::new();
            let count = origins.len() as u64;
            for (number, origin) in origins.into_iter().enumerate() {
                let now = number as u64 * seconds * 1_000 / count.max(1);
                coalescer.push(event(EventKind::Refused, &format!("o-{origin}")), now, &mut out);
            }
            prop_assert!(out.len() as u64 <= 50 + 5 * seconds);
        }
    }
}
