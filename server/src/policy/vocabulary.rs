//! The words of the schema as Cedar knows them, made once, and a request put into them.

use std::collections::{HashMap, HashSet};
use std::str::FromStr;
use std::sync::OnceLock;

use cedar_policy::{Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, RestrictedExpression, Schema};

use super::{Action, Direction, Group, Mode, PrincipalKind, Request, Resource, RiskLevel, Role, Subject};
use crate::environments::Tier;

/// What policies can speak about, as people read it.
pub(super) const SCHEMA: &str = include_str!("guidon.cedarschema");

/// What a resource is, as far as the schema tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Installation,
    Project,
    Environment,
}

impl Place {
    /// What `resource` is; `None` for an environment whose tier is not known, in which nothing may happen.
    pub(super) fn of(resource: &Resource) -> Option<Self> {
        match (resource.tier, resource.environment.is_empty(), resource.project.is_empty()) {
            (Some(_), ..) => Some(Self::Environment),
            (None, false, _) => None,
            (None, true, false) => Some(Self::Project),
            (None, true, true) => Some(Self::Installation),
        }
    }

    /// Whether the schema knows `action` there.
    pub(super) fn knows(self, action: Action) -> bool {
        match action.group() {
            Group::Serve | Group::Rehearse | Group::Release => self == Self::Environment,
            Group::Edit | Group::Delete | Group::Request => self != Self::Installation,
            Group::Read | Group::Export | Group::Credential | Group::Administer => true,
        }
    }
}

/// The schema's types and fixed entities. A decision clones handles of them instead of parsing names.
pub(super) struct Vocabulary {
    schema: Schema,
    kinds: Vec<EntityTypeName>,
    project: EntityTypeName,
    environment: EntityTypeName,
    installation: EntityUid,
    roles: Vec<EntityUid>,
    tiers: Vec<EntityUid>,
    modes: Vec<EntityUid>,
    directions: Vec<EntityUid>,
    risks: Vec<EntityUid>,
    human: EntityTypeName,
    groups: Vec<EntityUid>,
    actions: Vec<Entity>,
}

impl Vocabulary {
    /// The vocabulary; `None` if the schema that is built in were broken, which a test rules out.
    pub(super) fn get() -> Option<&'static Self> {
        static VOCABULARY: OnceLock<Option<Vocabulary>> = OnceLock::new();
        VOCABULARY.get_or_init(Self::new).as_ref()
    }

    fn new() -> Option<Self> {
        let (schema, _) = Schema::from_cedarschema_str(SCHEMA).ok()?;
        let named = |name: &str| EntityTypeName::from_str(name).ok();
        let all = |name: &str, ids: &[&str]| -> Option<Vec<EntityUid>> {
            let name = named(name)?;
            Some(ids.iter().map(|id| uid(&name, id)).collect())
        };
        let groups = all("Action", &Group::ALL.map(Group::as_str))?;
        let action = named("Action")?;
        let actions = Action::ALL.iter().map(|one| {
            let parents = HashSet::from([groups[one.group() as usize].clone()]);
            Entity::new_no_attrs(uid(&action, one.as_str()), parents)
        });
        Some(Self {
            actions: actions.collect(),
            schema,
            kinds: PrincipalKind::ALL.iter().map(|kind| named(type_name(*kind))).collect::<Option<_>>()?,
            human: named("Human")?,
            project: named("Project")?,
            environment: named("Environment")?,
            installation: uid(&named("Installation")?, ""),
            roles: all("Role", &Role::ALL.map(Role::as_str))?,
            tiers: all("Tier", &Tier::ALL.map(Tier::as_str))?,
            modes: all("Mode", &[Mode::Direct, Mode::Proposed].map(Mode::as_str))?,
            directions: all(
                "Direction",
                &[Direction::Still, Direction::Lowering, Direction::Widening].map(Direction::as_str),
            )?,
            risks: all("RiskLevel", &[RiskLevel::Low, RiskLevel::Medium, RiskLevel::High].map(RiskLevel::as_str))?,
            groups,
        })
    }

    pub(super) fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The type of such principals.
    pub(super) fn kind(&self, kind: PrincipalKind) -> &EntityTypeName {
        &self.kinds[kind as usize]
    }

    /// Whether the policy word `word` names `action`, or its group.
    pub(super) fn names(&self, word: &EntityUid, action: Action) -> bool {
        self.groups[action.group() as usize] == *word || self.actions[action as usize].uid() == *word
    }

    /// `request` as Cedar takes it, with the entities that it is about and no others; what is wrong with it otherwise.
    pub(super) fn question(&self, request: &Request) -> Result<(cedar_policy::Request, Entities), String> {
        let action = &self.actions[request.action as usize];
        let mut entities = Vec::with_capacity(4);
        let principal = self.principal(&request.subject, &mut entities)?;
        let resource = self.resource(&request.resource, &mut entities)?;
        entities.push(action.clone());
        let entities = Entities::from_entities(entities, None).map_err(|error| error.to_string())?;
        let context = self.context(request)?;
        let question = cedar_policy::Request::new(principal, action.uid(), resource, context, None)
            .map_err(|error| error.to_string())?;
        Ok((question, entities))
    }

    fn principal(&self, subject: &Subject, entities: &mut Vec<Entity>) -> Result<EntityUid, String> {
        let principal = uid(self.kind(subject.kind), &subject.id);
        let mut attributes = HashMap::from([("id".to_owned(), RestrictedExpression::new_string(subject.id.clone()))]);
        if let (PrincipalKind::Agent, Some(owner)) = (subject.kind, &subject.owner) {
            attributes.insert("owner".to_owned(), RestrictedExpression::new_entity_uid(uid(&self.human, owner)));
        }
        // Roles are for people: whatever else is said to have some has none.
        let parents = match subject.kind {
            PrincipalKind::Human => subject.roles.iter().map(|role| self.roles[*role as usize].clone()).collect(),
            _ => HashSet::new(),
        };
        let entity = Entity::new(principal.clone(), attributes, parents).map_err(|error| error.to_string())?;
        entities.push(entity);
        Ok(principal)
    }

    fn resource(&self, resource: &Resource, entities: &mut Vec<Entity>) -> Result<EntityUid, String> {
        let Some(place) = Place::of(resource) else {
            return Err(format!("the tier of environment \"{}\" is not known", resource.environment));
        };
        if place == Place::Installation {
            return Ok(self.installation.clone());
        }
        let project = uid(&self.project, &resource.project);
        entities.push(Entity::new_no_attrs(project.clone(), HashSet::from([self.installation.clone()])));
        let Some(tier) = resource.tier else { return Ok(project) };
        let tier = self.tiers[tier as usize].clone();
        let environment = uid(&self.environment, &format!("{}/{}", resource.project, resource.environment));
        let attributes = HashMap::from([
            ("project".to_owned(), RestrictedExpression::new_entity_uid(project.clone())),
            ("tier".to_owned(), RestrictedExpression::new_entity_uid(tier.clone())),
        ]);
        let entity = Entity::new(environment.clone(), attributes, HashSet::from([project, tier]))
            .map_err(|error| error.to_string())?;
        entities.push(entity);
        Ok(environment)
    }

    fn context(&self, request: &Request) -> Result<Context, String> {
        let facts = &request.facts;
        let word = |word: &EntityUid| RestrictedExpression::new_entity_uid(word.clone());
        let truth = RestrictedExpression::new_bool;
        let number = |number: u32| RestrictedExpression::new_long(number.into());
        let pairs = [
            ("mode", word(&self.modes[facts.mode as usize])),
            ("direction", word(&self.directions[facts.direction as usize])),
            ("factorFresh", truth(facts.factor_fresh)),
            ("inScope", truth(facts.in_scope)),
            ("frozen", truth(facts.frozen)),
            ("changesLastHour", number(facts.changes_last_hour)),
            ("anonymised", truth(facts.anonymised)),
            ("unclaimed", truth(facts.unclaimed)),
            ("own", truth(facts.own)),
            ("riskScore", number(facts.risk_score)),
            ("riskLevel", word(&self.risks[facts.risk_level as usize])),
            ("approvals", number(facts.approvals)),
            ("approvedPlan", truth(facts.approved_plan)),
            ("byAgent", truth(facts.by_agent)),
            ("drillFresh", truth(facts.drill_fresh)),
        ];
        Context::from_pairs(pairs.into_iter().map(|(name, value)| (name.to_owned(), value)))
            .map_err(|error| error.to_string())
    }
}

/// The schema's type of such principals.
pub(super) fn type_name(kind: PrincipalKind) -> &'static str {
    match kind {
        PrincipalKind::Operator => "Operator",
        PrincipalKind::Human => "Human",
        PrincipalKind::Service => "Service",
        PrincipalKind::Agent => "Agent",
        PrincipalKind::Application => "Application",
        PrincipalKind::System => "System",
    }
}

fn uid(name: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(name.clone(), EntityId::new(id))
}
