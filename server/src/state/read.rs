//! Questions that the API and the push ask of a world.

use std::sync::Arc;

use guidon_sdk::model::{EnvironmentFlag, Segment};

use super::{FlagState, Project, SegmentState, World};
use crate::environments::{Audience, Environment, SdkKey};
use crate::releases::{Incident, Release};

impl World {
    /// The project of this key.
    #[must_use]
    pub fn project(&self, project: &str) -> Option<&Arc<Project>> {
        self.projects.get(project)
    }

    /// The environment of this key.
    #[must_use]
    pub fn environment(&self, project: &str, environment: &str) -> Option<&Arc<Environment>> {
        self.project(project)?.environments.get(environment)
    }

    /// The flag of this key, archived or not.
    #[must_use]
    pub fn flag(&self, project: &str, flag: &str) -> Option<&Arc<FlagState>> {
        self.project(project)?.flags.get(flag)
    }

    /// The segment of this key.
    #[must_use]
    pub fn segment(&self, project: &str, environment: &str, segment: &str) -> Option<&Arc<SegmentState>> {
        self.project(project)?.segment(environment, segment)
    }

    /// What `audience` evaluates in an environment: see [`Project::environment_flags`]. Nothing where there is no such project.
    pub fn environment_flags<'a>(
        &'a self,
        project: &str,
        environment: &'a str,
        audience: Audience,
    ) -> impl Iterator<Item = EnvironmentFlag> + 'a {
        self.project(project).into_iter().flat_map(move |project| project.environment_flags(environment, audience))
    }

    /// The live SDK key whose credential hashes (BLAKE3, hexadecimal) to `hash`, and its project.
    #[must_use]
    pub fn sdk_key(&self, hash: &str) -> Option<(&Arc<Project>, &Arc<SdkKey>)> {
        let (project, id) = self.credentials.get(hash)?;
        let project = self.projects.get(project)?;
        Some((project, project.sdk_keys.get(id)?))
    }
}

impl Project {
    /// The segment of this key.
    #[must_use]
    pub fn segment(&self, environment: &str, segment: &str) -> Option<&Arc<SegmentState>> {
        self.segments.get(&(environment.to_owned(), segment.to_owned()))
    }

    /// The release of a flag in an environment: the last one.
    #[must_use]
    pub fn release(&self, environment: &str, flag: &str) -> Option<&Arc<Release>> {
        self.releases.get(&(environment.to_owned(), flag.to_owned()))
    }

    /// The open incidents of a flag in an environment.
    pub fn open_incidents<'a>(
        &'a self,
        environment: &'a str,
        flag: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Incident>> {
        let open = self.incidents.values().filter(|incident| incident.finding.is_none());
        open.filter(move |incident| incident.environment == environment && incident.flag == flag)
    }

    /// The segments of one environment, in the order of their keys.
    pub fn segments_in<'a>(&'a self, environment: &'a str) -> impl Iterator<Item = &'a Arc<SegmentState>> {
        self.segments
            .range((environment.to_owned(), String::new())..)
            .take_while(move |((of, _), _)| of == environment)
            .map(|(_, segment)| segment)
    }

    /// What `audience` evaluates in an environment, in the order of the keys: flags that are not archived and, for clients,
    /// that are marked for them.
    pub fn environment_flags<'a>(
        &'a self,
        environment: &'a str,
        audience: Audience,
    ) -> impl Iterator<Item = EnvironmentFlag> + 'a {
        self.flags.values().filter_map(move |flag| flag.in_environment(environment, audience))
    }
}

impl FlagState {
    /// What `audience` evaluates of the flag in an environment; `None` if it may not see it, or the flag is archived.
    #[must_use]
    pub fn in_environment(&self, environment: &str, audience: Audience) -> Option<EnvironmentFlag> {
        let visible = !self.published.archived && (audience == Audience::Server || self.published.client_side);
        if visible { self.published.in_environment(environment) } else { None }
    }
}

impl SegmentState {
    /// The segment as people and SDKs see it: with its keys, sorted.
    #[must_use]
    pub fn published(&self) -> Segment {
        let sorted = |keys: &guidon_sdk::eval::KeySet| {
            let mut keys: Vec<String> = keys.iter().map(str::to_owned).collect();
            keys.sort_unstable();
            keys
        };
        Segment {
            key: self.stored.key.clone(),
            name: self.stored.name.clone(),
            description: self.stored.description.clone(),
            included: sorted(&self.included),
            excluded: sorted(&self.excluded),
            rules: self.rules.to_vec(),
        }
    }
}
