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
    attributes: Vec<Attribute<'a>>,
}

#[derive(Clone, Debug, PartialEq)]
struct Attribute<'a> {
    name: Cow<'a, str>,
    value: AttributeValue<'a>,
}

/// Whether two names are equal. Most differ in length; up to sixteen bytes are compared without a call of `memcmp`.
#[inline(always)]
fn is_same(left: &str, right: &str) -> bool {
    let (left, right) = (left.as_bytes(), right.as_bytes());
    left.len() == right.len()
        && match right.len() {
            0..=3 => left.iter().eq(right),
            4..=8 => left.first_chunk::<4>() == right.first_chunk() && left.last_chunk::<4>() == right.last_chunk(),
            9..=16 => left.first_chunk::<8>() == right.first_chunk() && left.last_chunk::<8>() == right.last_chunk(),
            _ => left == right,
        }
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
    Array(Box<[AttributeValue<'a>]>),
    /// A structure: carried, and matched by no operator but `exists`.
    Object(Box<serde_json::Map<String, Value>>),
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
    #[inline(always)]
    pub fn with(mut self, name: impl Into<Cow<'a, str>>, value: impl Into<AttributeValue<'a>>) -> Self {
        self.set(name.into(), value.into());
        self
    }

    /// Inlined, so that of a literal name the length and the comparison with [`TARGETING_KEY`] are constants.
    #[inline(always)]
    fn set(&mut self, name: Cow<'a, str>, value: AttributeValue<'a>) {
        if name == TARGETING_KEY {
            self.targeting_key = match value {
                AttributeValue::String(key) if !key.is_empty() => Some(key),
                _ => None,
            };
            return;
        }
        if let Some(known) = self.attributes.iter_mut().find(|known| is_same(&known.name, &name)) {
            known.value = value;
            return;
        }
        if self.attributes.len() == self.attributes.capacity() {
            self.grow();
        }
        self.attributes.push(Attribute { name, value });
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self) {
        self.attributes.reserve_exact(self.attributes.len().max(8));
    }

    /// The targeting key, if there is one.
    #[must_use]
    pub fn targeting_key(&self) -> Option<&str> {
        self.targeting_key.as_deref()
    }

    /// The attribute of this name. The targeting key is not among the attributes.
    #[must_use]
    #[inline]
    pub fn get(&self, name: &str) -> Option<&AttributeValue<'a>> {
        self.attributes.iter().find(|known| is_same(&known.name, name)).map(|known| &known.value)
    }

    /// All attributes, in the order they were added.
    pub fn attributes(&self) -> impl Iterator<Item = (&str, &AttributeValue<'a>)> {
        self.attributes.iter().map(|attribute| (attribute.name.as_ref(), &attribute.value))
    }

    /// A copy that borrows nothing.
    #[must_use]
    pub fn into_owned(self) -> Context<'static> {
        Context {
            targeting_key: self.targeting_key.map(|key| Cow::Owned(key.into_owned())),
            attributes: self
                .attributes
                .into_iter()
                .map(|attribute| Attribute {
                    name: Cow::Owned(attribute.name.into_owned()),
                    value: attribute.value.into_owned(),
                })
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
            Self::Array(values) => AttributeValue::Array(values.into_iter().map(AttributeValue::into_owned).collect()),
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
            Value::Object(map) => Self::Object(Box::new(map)),
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn attributes_are_found_by_their_whole_name(names in proptest::collection::vec("[ab]{0,20}", 0..12)) {
            let mut context = Context::anonymous();
            let mut model = std::collections::BTreeMap::new();
            for (position, name) in names.iter().enumerate() {
                context = context.with(name.as_str(), position);
                model.insert(name.as_str(), position);
            }
            prop_assert_eq!(context.attributes().count(), model.len());
            for (name, position) in model {
                prop_assert_eq!(context.get(name), Some(&AttributeValue::from(position)));
            }
            prop_assert_eq!(context.get("abc"), None);
        }
    }

    #[test]
    fn values_are_as_small_as_a_string() {
        assert_eq!(size_of::<AttributeValue<'_>>(), 24);
    }

    #[test]
    fn json_form_is_flat_and_refuses_a_key_that_is_no_string() {
        let json = r#"{"targetingKey":"u","a":1,"list":["x",2],"nothing":null}"#;
        let context: Context<'static> = serde_json::from_str(json).unwrap();
        assert_eq!(context.targeting_key(), Some("u"));
        assert_eq!(
            serde_json::to_value(&context).unwrap(),
            serde_json::from_str::<Value>(&json.replace(":1,", ":1.0,").replace("2]", "2.0]")).unwrap()
        );
        assert!(serde_json::from_str::<Context<'static>>(r#"{"targetingKey":5}"#).is_err());
    }
}
