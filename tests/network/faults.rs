//! What is broken, and how it is mended.

use std::time::Duration;

use guidon_server::journal::MemoryJournal;
use rand::RngExt;
use rand::rngs::StdRng;
use turmoil::Sim;

use super::application_name;
use super::server::NAME as SERVER;

/// A link between an application and the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Healthy,
    /// Drops everything.
    Partitioned,
    /// Drops what the application sends.
    DeafServer,
    /// Drops what the server sends.
    DeafApplication,
    /// Keeps everything until it is mended.
    Held,
    Slow,
}

/// What is broken at present.
pub struct Faults {
    links: Vec<Link>,
    applications_down: Vec<bool>,
    server_down: bool,
    journal_held: bool,
    count: usize,
}

impl Faults {
    pub fn new(applications: usize) -> Self {
        let (links, applications_down) = (vec![Link::Healthy; applications], vec![false; applications]);
        Self { links, applications_down, server_down: false, journal_held: false, count: 0 }
    }

    /// How often something was broken.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Breaks something that works, or mends it if it is broken.
    pub fn next(&mut self, sim: &mut Sim<'_>, journal: &MemoryJournal, random: &mut StdRng) {
        let index = random.random_range(0..self.links.len());
        match random.random_range(0..10) {
            0..6 if self.links[index] == Link::Healthy => self.break_link(sim, index, random),
            0..6 => self.mend_link(sim, index),
            6 => self.toggle_application(sim, index),
            7 => self.toggle_server(sim),
            8 => self.toggle_journal(journal),
            _ if self.server_down => self.toggle_server(sim),
            _ => self.mend_link(sim, index),
        }
    }

    pub fn mend_all(&mut self, sim: &mut Sim<'_>, journal: &MemoryJournal) {
        (0..self.links.len()).for_each(|index| self.mend_link(sim, index));
        if self.journal_held {
            self.toggle_journal(journal);
        }
        if self.server_down {
            self.toggle_server(sim);
        }
        for index in 0..self.links.len() {
            if self.applications_down[index] {
                self.toggle_application(sim, index);
            }
        }
    }

    fn break_link(&mut self, sim: &mut Sim<'_>, index: usize, random: &mut StdRng) {
        let application = application_name(index);
        self.count += 1;
        self.links[index] = match random.random_range(0..5) {
            0 => {
                sim.partition(application, SERVER);
                Link::Partitioned
            }
            1 => {
                sim.partition_oneway(application, SERVER);
                Link::DeafServer
            }
            2 => {
                sim.partition_oneway(SERVER, application);
                Link::DeafApplication
            }
            3 => {
                sim.hold(application, SERVER);
                Link::Held
            }
            _ => {
                let most = Duration::from_millis(random.random_range(50..500));
                sim.set_link_max_message_latency(application, SERVER, most);
                Link::Slow
            }
        };
    }

    fn mend_link(&mut self, sim: &mut Sim<'_>, index: usize) {
        let application = application_name(index);
        match std::mem::replace(&mut self.links[index], Link::Healthy) {
            Link::Healthy => {}
            Link::Partitioned => sim.repair(application, SERVER),
            Link::DeafServer => sim.repair_oneway(application, SERVER),
            Link::DeafApplication => sim.repair_oneway(SERVER, application),
            Link::Held => sim.release(application, SERVER),
            Link::Slow => sim.set_link_max_message_latency(application, SERVER, Duration::from_millis(20)),
        }
    }

    fn toggle_application(&mut self, sim: &mut Sim<'_>, index: usize) {
        let application = application_name(index);
        self.applications_down[index] = !self.applications_down[index];
        if self.applications_down[index] {
            self.count += 1;
            sim.crash(application);
        } else {
            sim.bounce(application);
        }
    }

    fn toggle_server(&mut self, sim: &mut Sim<'_>) {
        self.server_down = !self.server_down;
        if self.server_down {
            self.count += 1;
            sim.crash(SERVER);
        } else {
            sim.bounce(SERVER);
            // A restarted server finds a disk that works.
            self.journal_held = false;
        }
    }

    /// Holds entries back from being durable: a crash before they are released loses them.
    fn toggle_journal(&mut self, journal: &MemoryJournal) {
        self.journal_held = !self.journal_held;
        if self.journal_held {
            self.count += 1;
            journal.hold();
        } else {
            journal.release();
        }
    }
}
