//! Healing of instances: what may be done, how often, and what is said of it. Pure.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::str::FromStr;

use super::ill::ill;
use crate::metrics::InstanceTally;
use crate::notifications::Target;

/// Most actions that an operator can allow.
pub const MAX_ACTIONS: usize = 32;
/// Longest name of an action, in bytes.
pub const MAX_NAME_BYTES: usize = 64;
/// Healing actions in one hour for one project.
pub const MAX_PER_HOUR: usize = 4;
/// Seconds from one action on an instance to the next.
pub const COOL_DOWN_SECONDS: u64 = 900;
/// Seconds from the end of an action, and from the end of a route away, until one looks whether it helped.
pub const VERIFY_AFTER_SECONDS: u64 = 60;
/// Calls of the treatment without which nobody can say whether an instance does well again.
pub const MIN_CALLS: u64 = 30;

const HOUR_MS: u64 = 3_600_000;

/// A healing action that the operator allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealingAction {
    /// Its name, which plans give: 1 to [`MAX_NAME_BYTES`] of letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// What is done.
    pub remedy: Remedy,
}

/// What a healing action does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Runs a program on the server's machine.
    Command {
        /// Its absolute path.
        program: PathBuf,
        /// Its arguments; nothing of them comes from a release.
        arguments: Vec<String>,
    },
    /// Calls a receiver.
    Webhook(Target),
}

impl Remedy {
    /// What it is, in words, without what may be secret.
    #[must_use]
    pub fn noun(&self) -> String {
        match self {
            Self::Command { program, .. } => format!("command {}", program.display()),
            Self::Webhook(target) => format!("call of {}", target.shown()),
        }
    }
}

impl FromStr for HealingAction {
    type Err = String;

    /// Reads `NAME=/program argument …` (separated by spaces, which no argument can hold) or `NAME=https://…`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, what) = text.split_once('=').ok_or("an action is written NAME=/program … or NAME=https://…")?;
        let of_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(of_name) {
            return Err(format!("a name is 1 to {MAX_NAME_BYTES} letters, digits, -, _ or ."));
        }
        let remedy = if what.starts_with("https://") || what.starts_with("http://") {
            Remedy::Webhook(Target::parse(what).map_err(|error| error.to_string())?)
        } else {
            let mut words = what.split_whitespace().map(str::to_owned);
            let program = PathBuf::from(words.next().unwrap_or_default());
            if !program.is_absolute() {
                return Err("a command is an absolute path, as /usr/local/bin/restart, with its arguments".to_owned());
            }
            Remedy::Command { program, arguments: words.collect() }
        };
        Ok(Self { name: name.to_owned(), remedy })
    }
}

/// Why no healing action runs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotHealed {
    /// The plan names what the operator does not allow.
    #[error("the plan's healing action {asked:?} is not configured here; {known}")]
    Unknown {
        /// What the plan names.
        asked: String,
        /// What there is, in words.
        known: String,
    },
    /// The instance was healed a moment ago.
    #[error("no healing action: one ran for this instance less than {} minutes ago", COOL_DOWN_SECONDS / 60)]
    CoolingDown,
    /// The project had its share.
    #[error("no healing action: the project's {MAX_PER_HOUR} of this hour are used up")]
    Spent,
}

/// The action that a plan names.
///
/// # Errors
///
/// [`NotHealed::Unknown`], with those that there are.
pub fn choose<'a>(actions: &'a [HealingAction], asked: &str) -> Result<&'a HealingAction, NotHealed> {
    actions.iter().find(|action| action.name == asked).ok_or_else(|| {
        let names: Vec<&str> = actions.iter().map(|action| action.name.as_str()).collect();
        let known = match names.as_slice() {
            [] => "the operator allows none (serve with --healing)".to_owned(),
            names => format!("the operator allows {}", names.join(", ")),
        };
        NotHealed::Unknown { asked: asked.chars().take(MAX_NAME_BYTES).collect(), known }
    })
}

/// How often healing actions ran. It forgets with a restart of the server; what routes instances away has a budget of its own,
/// which is in the journal, and nothing is healed that was not routed away.
///
/// Memory: a time and a name for each of at most [`MAX_PER_HOUR`] actions of a project.
#[derive(Clone, Debug, Default)]
pub struct Budget {
    taken: HashMap<String, VecDeque<(u64, String)>>,
}

impl Budget {
    /// Takes one action for an instance (environment and name) of a project at `now` (milliseconds since 1970).
    ///
    /// # Errors
    ///
    /// [`NotHealed::CoolingDown`] and [`NotHealed::Spent`]; then nothing is taken.
    pub fn take(&mut self, project: &str, instance: &str, now: u64) -> Result<(), NotHealed> {
        self.taken.retain(|_, taken| {
            taken.retain(|(at, _)| at.saturating_add(HOUR_MS) > now);
            !taken.is_empty()
        });
        let taken = self.taken.entry(project.to_owned()).or_default();
        let rests = |at: u64| at.saturating_add(COOL_DOWN_SECONDS * 1_000) > now;
        let refused = if taken.iter().any(|(at, of)| of == instance && rests(*at)) {
            Some(NotHealed::CoolingDown)
        } else {
            (taken.len() >= MAX_PER_HOUR).then_some(NotHealed::Spent)
        };
        if let Some(refused) = refused {
            return Err(refused);
        }
        taken.push_back((now, instance.to_owned()));
        Ok(())
    }
}

/// What became of an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The command ended by itself.
    Exited(i32),
    /// The command was ended by a signal.
    Signalled,
    /// The command was ended at its time limit.
    Late {
        /// The limit.
        seconds: u64,
    },
    /// The receiver answered.
    Answered(u16),
    /// It could not be run or called.
    Failed(String),
}

impl Outcome {
    /// The sentence for the incident.
    #[must_use]
    pub fn note(&self, action: &HealingAction) -> String {
        let (name, noun) = (&action.name, action.remedy.noun());
        match self {
            Self::Exited(0) => format!("healing action {name} ({noun}) ended with exit code 0"),
            Self::Exited(code) => format!("healing action {name} ({noun}) failed with exit code {code}"),
            Self::Signalled => format!("healing action {name} ({noun}) was ended by a signal"),
            Self::Late { seconds } => {
                format!("healing action {name} ({noun}) was ended: it was not done within {seconds} seconds")
            }
            Self::Answered(status) if (200..300).contains(status) => {
                format!("healing action {name} ({noun}) was answered with status {status}")
            }
            Self::Answered(status) => format!("healing action {name} ({noun}) was refused with status {status}"),
            Self::Failed(reason) => format!("healing action {name} ({noun}) could not run: {reason}"),
        }
    }

    /// Whether it was done.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Exited(0)) || matches!(self, Self::Answered(status) if (200..300).contains(status))
    }
}

/// What is known of an instance some time after the action, while it is still routed away: its treatment is not tried, so that
/// all one can tell is whether it is there, and whether it is a new process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Presence {
    /// Run of its process when it was routed away, if it had sent measurements.
    pub epoch_then: Option<u64>,
    /// The same now.
    pub epoch_now: Option<u64>,
    /// Since when it is connected, in milliseconds since 1970; none if it is not.
    pub connected_since: Option<u64>,
    /// When the action began.
    pub acted_at: u64,
}

impl Presence {
    /// The sentence for the incident.
    #[must_use]
    pub fn note(&self, instance: &str) -> String {
        let said = match self.connected_since {
            None => "is not connected: it has not come back, or not yet",
            Some(_) if self.epoch_then.zip(self.epoch_now).is_some_and(|(then, now)| now > then) => {
                "has come back as a new process, and stays routed away until its time is over"
            }
            Some(since) if since >= self.acted_at => "has connected anew, and stays routed away until its time is over",
            Some(_) => "is connected as before, and stays routed away until its time is over",
        };
        format!("{VERIFY_AFTER_SECONDS} s after the healing action: {instance} {said}")
    }
}

/// What is seen of an instance whose treatment is tried again for [`VERIFY_AFTER_SECONDS`]. `acted` says whether a healing action
/// was done, `again` that it has been routed away once more.
#[must_use]
pub fn verdict(instance: &str, acted: bool, again: bool, seen: &[InstanceTally]) -> String {
    let (well, ill_again) = if acted {
        ("the healing action helped", "the healing action did not help")
    } else {
        ("it is well again by itself", "it is not well by itself")
    };
    if again {
        return format!("{ill_again}: {instance} was routed away once more");
    }
    let Some(tally) = seen.iter().find(|tally| tally.instance == instance) else {
        return format!("nobody can say whether {instance} is well again: it was not heard in the last minute");
    };
    let arm = &tally.treatment;
    match ill(seen).into_iter().find(|found| found.instance == instance) {
        Some(found) => format!("{ill_again}: {instance} does worse than its peers, {}", found.reason),
        None if arm.count < MIN_CALLS => {
            format!("nobody can say whether {instance} is well again: it had {} calls in the last minute", arm.count)
        }
        None => format!(
            "{well}: {instance} does as its peers do, {} of its {} calls failed in the last minute",
            arm.errors, arm.count
        ),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::metrics::ArmTally;

    fn tally(instance: &str, calls: u64, errors: u64) -> InstanceTally {
        let treatment = ArmTally { count: calls, errors, ..ArmTally::default() };
        let instance = instance.to_owned();
        InstanceTally { instance, treatment, control: ArmTally::default(), host: None, heard: 100, epoch: 5 }
    }

    fn fleet(calls: u64, errors: u64) -> Vec<InstanceTally> {
        ["a", "b", "c", "d"]
            .map(|name| if name == "b" { tally(name, calls, errors) } else { tally(name, 100, 1) })
            .to_vec()
    }

    #[test]
    fn actions_are_read_and_what_is_none_is_refused() {
        let read = |text: &str| text.parse::<HealingAction>();
        let command = read("restart=/usr/bin/systemctl  restart app@1").unwrap();
        let arguments = vec!["restart".to_owned(), "app@1".to_owned()];
        assert_eq!(command.remedy, Remedy::Command { program: "/usr/bin/systemctl".into(), arguments });
        let hook = read("scale=https://ops.example/heal?key=SECRET").unwrap();
        assert_eq!(hook.remedy.noun(), "call of https://ops.example/…");
        assert!(!format!("{hook:?}").contains("SECRET"));
        for wrong in
            ["", "restart", "=/bin/true", "a b=/bin/true", "restart=", "restart=true", "restart=./x", "x=https://"]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert!(read(&format!("{}=/bin/true", "x".repeat(MAX_NAME_BYTES + 1))).is_err());
    }

    #[test]
    fn an_unknown_action_is_answered_with_those_that_there_are() {
        let actions = vec!["restart=/bin/true".parse().unwrap(), "scale=/bin/true".parse().unwrap()];
        assert_eq!(choose(&actions, "scale").unwrap().name, "scale");
        let said = choose(&actions, "reboot").unwrap_err().to_string();
        assert_eq!(
            said,
            "the plan's healing action \"reboot\" is not configured here; the operator allows restart, scale"
        );
        assert!(choose(&[], "reboot").unwrap_err().to_string().contains("--healing"));
    }

    #[test]
    fn an_instance_rests_and_a_project_has_so_many_an_hour() {
        let (mut budget, start) = (Budget::default(), 1_000_000_000);
        assert_eq!(budget.take("p", "e/a", start), Ok(()));
        assert_eq!(budget.take("p", "e/a", start + 1_000), Err(NotHealed::CoolingDown));
        assert_eq!(budget.take("other", "e/a", start + 1_000), Ok(()));
        for instance in ["e/b", "e/c", "e/d"] {
            assert_eq!(budget.take("p", instance, start + 2_000), Ok(()));
        }
        assert_eq!(budget.take("p", "e/f", start + 3_000), Err(NotHealed::Spent));
        assert_eq!(budget.take("p", "e/a", start + HOUR_MS), Ok(()), "an hour after the first there is room for one");
        assert_eq!(budget.take("p", "e/f", start + HOUR_MS), Err(NotHealed::Spent));
    }

    #[test]
    fn what_is_said_is_what_is_seen() {
        let presence =
            |epoch_now, connected_since| Presence { epoch_then: Some(4), epoch_now, connected_since, acted_at: 50 };
        let told = |of: Presence| of.note("b");
        assert!(told(presence(Some(5), Some(60))).contains("a new process"));
        assert!(told(presence(Some(4), Some(60))).contains("connected anew"));
        assert!(told(presence(None, Some(40))).contains("as before"));
        assert!(told(presence(Some(5), None)).contains("is not connected"));
        let verdict = |again, seen: &[InstanceTally]| verdict("b", true, again, seen);
        assert!(verdict(false, &fleet(100, 1)).starts_with("the healing action helped"));
        assert!(verdict(false, &fleet(100, 60)).starts_with("the healing action did not help"));
        assert!(verdict(false, &fleet(5, 0)).starts_with("nobody can say"));
        assert!(verdict(false, &[]).starts_with("nobody can say"));
        assert!(verdict(true, &fleet(100, 1)).starts_with("the healing action did not help"));
        assert!(super::verdict("b", false, false, &fleet(100, 1)).starts_with("it is well again by itself"));
        let action: HealingAction = "restart=/bin/x".parse().unwrap();
        assert_eq!(Outcome::Exited(3).note(&action), "healing action restart (command /bin/x) failed with exit code 3");
        assert!(Outcome::Exited(0).is_done() && Outcome::Answered(204).is_done() && !Outcome::Answered(301).is_done());
    }

    proptest! {
        #[test]
        fn no_hour_has_more_than_its_share(asks in prop::collection::vec((0_u64..3 * HOUR_MS, 0_u8..12), 1..200)) {
            let mut asks = asks;
            asks.sort_unstable();
            let mut budget = Budget::default();
            let granted: Vec<(u64, u8)> =
                asks.into_iter().filter(|(at, of)| budget.take("p", &of.to_string(), *at).is_ok()).collect();
            for (at, of) in &granted {
                let within = |window: u64| granted.iter().filter(move |(other, _)| other >= at && *other < at + window);
                prop_assert!(within(HOUR_MS).count() <= MAX_PER_HOUR);
                prop_assert_eq!(within(COOL_DOWN_SECONDS * 1_000).filter(|(_, other)| other == of).count(), 1);
            }
        }
    }
}
