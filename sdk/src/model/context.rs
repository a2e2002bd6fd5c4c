//! Who an evaluation is for.

use std::borrow::Cow;

use serde::de::{self, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// Attribute name that stands for a context's targeting key.
pub const TARGETING_KEY: &str = "targetingKey";

/// Who an evaluation is for: a targeting key and attributes (OpenFeature's evaluation context).
///
/// Borrows what it can, so that building one for a request costs no copies of strings. In JSON it is one flat object:
/// `{"targetingKey":"user-42","country":"US"}`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Context<'a> {
    targeting_key: Option<Cow<'a, str>>,
    attributes: Vec<(Cow<'a, str>, AttributeValue<'a>)>,
}

/// Value of a context attribute.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum AttributeValue<'a> {
    /// JSON null: as if the attribute were not there.
    Null,
    /// A boolean.
    Bool(bool),
    /// A number; integers are exact within ±2⁵³.
    Number(f64),
    /// A string, also one that holds a time, a version or an address.
    String(Cow<'a, str>),
    /// A list: a clause matches it if any element does.
    Array(Vec<AttributeValue<'a>>),
    /// A structure: carried, and matched by no operator but `exists`.
    Object(serde_json::Map<String, Value>),
}

impl<'a> Context<'a> {
    /// A context with a targeting key. An empty key counts as none.
    pub fn new(targeting_key: impl Into<Cow<'a, str>>) -> Self {
        let key = targeting_key.into();
        Self { targeting_key: (!key.is_empty()).then_some(key), attributes: Vec::new() }
    }

    /// A context without a targeting key: rollouts by targeting key answer the caller's default for it.
    #[must_use]
    pub fn anonymous() -> Self {
        Self::default()
    }

    /// Adds an attribute, replacing one of the same name. [`TARGETING_KEY`] sets the targeting key, if the value is a string.
    #[must_use]
    pub fn with(mut self, name: impl Into<Cow<'a, str>>, value: impl Into<AttributeValue<'a>>) -> Self {
        self.set(name.into(), value.into());
        self
    }

    fn set(&mut self, name: Cow<'a, str>, value: AttributeValue<'a>) {
        if name == TARGETING_KEY {
            self.targeting_key = match value {
                AttributeValue::String(key) if !key.is_empty() => Some(key),
                _ => None,
            };
        } else if let Some(slot) = self.attributes.iter_mut().find(|(known, _)| *known == name) {
            slot.1 = value;
        } else {
            if self.attributes.capacity() == 0 {
                self.attributes.reserve_exact(8);
            }
            self.attributes.push((name, value));
        }
    }

    /// The targeting key, if there is one.
    #[must_use]
    pub fn targeting_key(&self) -> Option<&str> {
        self.targeting_key.as_deref()
    }

    /// The attribute of this name. The targeting key is not among the attributes.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&AttributeValue<'a>> {
        self.attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// All attributes, in the order they were added.
    pub fn attributes(&self) -> impl Iterator<Item = (&str, &AttributeValue<'a>)> {
        self.attributes.iter().map(|(name, value)| (name.as_ref(), value))
    }

    /// A copy that borrows nothing.
    #[must_use]
    pub fn into_owned(self) -> Context<'static> {
        Context {
            targeting_key: self.targeting_key.map(|key| Cow::Owned(key.into_owned())),
            attributes: self
                .attributes
                .into_iter()
                .map(|(name, value)| (Cow::Owned(name.into_owned()), value.into_owned()))
                .collect(),
        }
    }
}

impl AttributeValue<'_> {
    /// A copy that borrows nothing.
    #[must_use]
    pub fn into_owned(self) -> AttributeValue<'static> {
        match self {
            Self::Null => AttributeValue::Null,
            Self::Bool(value) => AttributeValue::Bool(value),
            Self::Number(value) => AttributeValue::Number(value),
            Self::String(value) => AttributeValue::String(Cow::Owned(value.into_owned())),
            Self::Array(values) => AttributeValue::Array(values.into_iter().map(Self::into_owned).collect()),
            Self::Object(map) => AttributeValue::Object(map),
        }
    }
}

impl<'a> From<&'a str> for AttributeValue<'a> {
    fn from(value: &'a str) -> Self {
        Self::String(Cow::Borrowed(value))
    }
}

impl<'a> From<&'a String> for AttributeValue<'a> {
    fn from(value: &'a String) -> Self {
        Self::String(Cow::Borrowed(value))
    }
}

impl From<String> for AttributeValue<'_> {
    fn from(value: String) -> Self {
        Self::String(Cow::Owned(value))
    }
}

impl<'a> From<Cow<'a, str>> for AttributeValue<'a> {
    fn from(value: Cow<'a, str>) -> Self {
        Self::String(value)
    }
}

impl From<bool> for AttributeValue<'_> {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

macro_rules! from_number {
    ($($number:ty),*) => {$(
        impl From<$number> for AttributeValue<'_> {
            fn from(value: $number) -> Self {
                Self::Number(value.into())
            }
        }
    )*};
}
from_number!(i8, i16, i32, u8, u16, u32, f32, f64);

macro_rules! from_wide_integer {
    ($($number:ty),*) => {$(
        impl From<$number> for AttributeValue<'_> {
            /// Integers beyond ±2⁵³ are rounded to the nearest double.
            fn from(value: $number) -> Self {
                Self::Number(value as f64)
            }
        }
    )*};
}
from_wide_integer!(i64, u64, isize, usize);

impl<'a, T: Into<AttributeValue<'a>>> From<Vec<T>> for AttributeValue<'a> {
    fn from(values: Vec<T>) -> Self {
        Self::Array(values.into_iter().map(Into::into).collect())
    }
}

impl From<Value> for AttributeValue<'_> {
    fn from(value: Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(value),
            Value::Number(value) => value.as_f64().map_or(Self::Null, Self::Number),
            Value::String(value) => Self::String(Cow::Owned(value)),
            Value::Array(values) => Self::Array(values.into_iter().map(Into::into).collect()),
            Value::Object(map) => Self::Object(map),
        }
    }
}

impl Serialize for Context<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(key) = self.targeting_key() {
            map.serialize_entry(TARGETING_KEY, key)?;
        }
        for (name, value) in self.attributes() {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Context<'static> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FlatObject;

        impl<'de> Visitor<'de> for FlatObject {
            type Value = Context<'static>;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object of attributes, with the string \"targetingKey\" among them")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut context = Context::anonymous();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if name == TARGETING_KEY && !value.is_string() {
                        return Err(de::Error::custom("targetingKey must be a string"));
                    }
                    context.set(Cow::Owned(name), value.into());
                }
                Ok(context)
            }
        }

        deserializer.deserialize_map(FlatObject)
    }
}
