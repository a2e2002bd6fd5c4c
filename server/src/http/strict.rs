//! Reading typed values out of JSON strictly: unknown fields are found, and everything wrong has its JSON pointer.
//!
//! The model's own `Deserialize` is lenient, so that an older SDK can follow a newer server. A caller who writes is told of
//! a misspelt field instead. This is a `serde` deserializer over a [`Value`] that knows where it is.

use std::cell::RefCell;
use std::fmt::{self, Write};

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, Expected, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    VariantAccess, Visitor,
};
use serde_json::{Map, Value};

use super::problem::Fault;
use crate::changes::Instruction;
use crate::changes::instruction::ENVIRONMENT;
use crate::releases::ReleaseEdit;
use crate::spelling::{hint, nearest};

/// Most faults one problem document lists.
pub const MAX_FAULTS: usize = 100;

/// Reads a `T` from `value`; `pointer` is where the value stands in the body.
///
/// # Errors
///
/// Every unknown field, and the first field that cannot be read.
pub fn read<T: de::DeserializeOwned>(value: &Value, pointer: &str) -> Result<T, Vec<Fault>> {
    collect(pointer, |at| T::deserialize(at.node(value)))
}

/// Reads an instruction in its published form, one flat object with a `kind` and, where it applies to an environment that its
/// change does not name, an `environment`.
///
/// # Errors
///
/// As [`read`]. A kind that does not exist has the code `unknownInstruction`.
pub fn read_instruction(value: &Value, pointer: &str) -> Result<Instruction, Vec<Fault>> {
    let Some(fields) = value.as_object() else {
        return Err(vec![Fault::new(pointer, "wrongType", "an instruction is an object with a kind")]);
    };
    let kind = match fields.get("kind") {
        Some(Value::String(kind)) => kind.as_str(),
        Some(_) => return Err(vec![Fault::new(format!("{pointer}/kind"), "wrongType", "a kind is a string")]),
        None => {
            let detail = "an instruction needs a kind, as in {\"kind\":\"turnFlagOn\",\"flag\":\"…\"}";
            return Err(vec![Fault::new(pointer, "missingField", detail)]);
        }
    };
    let place = format!("{pointer}/{ENVIRONMENT}");
    let own = match fields.get(ENVIRONMENT) {
        None => None,
        Some(Value::String(environment)) => Some(environment),
        Some(_) => return Err(vec![Fault::new(place, "wrongType", "an environment is a string: its key")]),
    };
    // `Instruction::deserialize` is the derived form, tagged from outside; `Tagged` shows it the flat one.
    let edit = if ReleaseEdit::ASKED.contains(&kind) {
        let edit = collect(pointer, |at| ReleaseEdit::deserialize(Tagged(at.node(value))))?;
        Instruction::Release(Box::new(edit))
    } else if ReleaseEdit::KINDS.contains(&kind) {
        let detail = format!(
            "`{kind}` is made by the server alone, when the guard of a release decides it; `abortRelease` takes a release back"
        );
        return Err(vec![Fault::new(format!("{pointer}/kind"), "notHere", detail)]);
    } else {
        collect(pointer, |at| Instruction::deserialize(Tagged(at.node(value))))?
    };
    match own {
        None => Ok(edit),
        Some(environment) if edit.needs_environment() => Ok(Instruction::within(environment, edit)),
        Some(_) => Err(vec![Fault::new(place, "notHere", edit.in_no_environment())]),
    }
}

/// Refuses JSON objects with the same name twice, which readers take differently.
///
/// # Errors
///
/// The parser's, or one that names the field.
pub fn parse(text: &[u8]) -> serde_json::Result<Value> {
    let mut parser = serde_json::Deserializer::from_slice(text);
    let value = Unrepeated.deserialize(&mut parser)?;
    parser.end()?;
    Ok(value)
}

struct Unrepeated;

impl<'de> DeserializeSeed<'de> for Unrepeated {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unrepeated {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(element) = elements.next_element_seed(Self)? {
            array.push(element);
        }
        Ok(array.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = fields.next_key::<String>()? {
            let value = fields.next_value_seed(Self)?;
            if object.contains_key(&name) {
                return Err(de::Error::custom(format_args!("the field {name:?} occurs twice in one object")));
            }
            object.insert(name, value);
        }
        Ok(object.into())
    }
}

/// Runs one reading and gathers what it found.
fn collect<T>(pointer: &str, run: impl FnOnce(&At<'_>) -> Result<T, Error>) -> Result<T, Vec<Fault>> {
    let unknown = RefCell::new(Vec::new());
    let root = At { step: Step::Root(pointer), unknown: &unknown };
    let outcome = run(&root);
    let mut faults = unknown.into_inner();
    match outcome {
        Ok(value) if faults.is_empty() => Ok(value),
        Ok(_) => Err(faults),
        Err(error) => {
            let Error { pointer: place, code, detail } = error;
            faults.push(Fault::new(place.unwrap_or_else(|| pointer.to_owned()), code, detail));
            Err(faults)
        }
    }
}

/// Where the reader is, as a chain of steps on the stack.
#[derive(Clone, Copy)]
struct At<'a> {
    step: Step<'a>,
    unknown: &'a RefCell<Vec<Fault>>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Root(&'a str),
    Field(&'a At<'a>, &'a str),
    Element(&'a At<'a>, usize),
}

impl<'a> At<'a> {
    fn node(&'a self, value: &'a Value) -> Node<'a> {
        Node { value, at: *self, siblings: &[] }
    }

    fn field<'b>(&'b self, name: &'b str) -> At<'b> {
        At { step: Step::Field(self, name), unknown: self.unknown }
    }

    fn pointer(&self) -> String {
        let mut pointer = String::new();
        self.write_pointer(&mut pointer);
        pointer
    }

    fn write_pointer(&self, pointer: &mut String) {
        match self.step {
            Step::Root(root) => pointer.push_str(root),
            Step::Field(parent, name) => {
                parent.write_pointer(pointer);
                pointer.push('/');
                pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
            }
            Step::Element(parent, index) => {
                parent.write_pointer(pointer);
                // Writing into a string does not fail.
                let _ = write!(pointer, "/{index}");
            }
        }
    }

    fn note_unknown(&self, name: &str, known: &[&str]) {
        let mut unknown = self.unknown.borrow_mut();
        if unknown.len() < MAX_FAULTS {
            let hint = hint(name, known);
            unknown.push(Fault::new(self.pointer(), "unknownField", format!("there is no field {name:?} here{hint}")));
        }
    }
}

/// A value and where it stands; `siblings` are the fields its object may have, while it is read as one of them.
struct Node<'a> {
    value: &'a Value,
    at: At<'a>,
    siblings: &'static [&'static str],
}

impl Node<'_> {
    fn fields(&self) -> Fields<'_> {
        let entries = match self.value {
            Value::Object(object) => Some(object.iter()),
            _ => None,
        };
        Fields { entries, current: None, at: &self.at, known: &[], skip: &[] }
    }

    fn wrong_type(&self, expected: &dyn Expected) -> Error {
        <Error as de::Error>::invalid_type(unexpected(self.value), expected).located(&self.at)
    }
}

impl<'de> Deserializer<'de> for Node<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::String(value) => visitor.visit_str(value),
            Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(value), ..) => visitor.visit_u64(value),
                (None, Some(value), _) => visitor.visit_i64(value),
                (None, None, value) => visitor.visit_f64(value.unwrap_or(f64::NAN)),
            },
            Value::Array(elements) => {
                let mut elements = Elements { elements: elements.iter(), index: 0, at: &self.at };
                visitor.visit_seq(&mut elements).and_then(|value| elements.finish().map(|()| value))
            }
            Value::Object(_) => visitor.visit_map(self.fields()),
        }
        .map_err(|error| error.located(&self.at))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.value.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        if !self.value.is_object() {
            return Err(self.wrong_type(&"an object"));
        }
        visitor.visit_map(Fields { known, ..self.fields() }).map_err(|error| error.located(&self.at))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let (variant, content) = match self.value {
            Value::String(variant) => (variant, None),
            Value::Object(object) if object.len() == 1 => match object.iter().next() {
                Some((variant, content)) => (variant, Some(content)),
                None => return Err(self.wrong_type(&"one of the forms")),
            },
            Value::Object(_) => {
                return Err(Error::new("wrongType", "expected an object with exactly one field, which says the form")
                    .located(&self.at));
            }
            _ => return Err(self.wrong_type(&"a string, or an object with one field")),
        };
        visitor.visit_enum(Variant { variant, content, at: &self.at }).map_err(|error| error.located(&self.at))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if let Step::Field(_, name) = self.at.step {
            self.at.note_unknown(name, self.siblings);
        }
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier
    }
}

/// An instruction's object, shown as `{kind: {the other fields}}`.
struct Tagged<'a>(Node<'a>);

impl<'de> Deserializer<'de> for Tagged<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.0.deserialize_any(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        kinds: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let kind = self.0.value.get("kind").and_then(Value::as_str).unwrap_or_default();
        if !kinds.contains(&kind) {
            let kinds: Vec<&str> = kinds.iter().copied().chain(ReleaseEdit::ASKED).collect();
            let hint = nearest(kind, &kinds).map_or_else(|| ".".to_owned(), |near| format!("; did you mean {near:?}?"));
            let detail = format!("there is no instruction {kind:?}{hint} The kinds are {}.", kinds.join(", "));
            return Err(Error::new("unknownInstruction", detail).located(&self.0.at.field("kind")));
        }
        visitor.visit_enum(FlatVariant { kind, node: self.0 })
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

struct FlatVariant<'a> {
    kind: &'a str,
    node: Node<'a>,
}

impl<'de, 'a> EnumAccess<'de> for FlatVariant<'a> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Error> {
        let name: StrDeserializer<'_, Error> = self.kind.into_deserializer();
        let kind = seed.deserialize(name)?;
        Ok((kind, self))
    }
}

impl<'de> VariantAccess<'de> for FlatVariant<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(self.node)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _length: usize, visitor: V) -> Result<V::Value, Error> {
        self.node.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, known: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        let fields = Fields { known, skip: &["kind", ENVIRONMENT], ..self.node.fields() };
        visitor.visit_map(fields).map_err(|error| error.located(&self.node.at))
    }
}

/// The fields of an object, one after the other.
struct Fields<'a> {
    entries: Option<serde_json::map::Iter<'a>>,
    current: Option<(&'a str, &'a Value)>,
    at: &'a At<'a>,
    known: &'static [&'static str],
    skip: &'static [&'static str],
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let skip = self.skip;
        let next = self.entries.as_mut().and_then(|entries| entries.find(|(name, _)| !skip.contains(&name.as_str())));
        self.current = next.map(|(name, value)| (name.as_str(), value));
        let Some((name, _)) = self.current else { return Ok(None) };
        let key = seed.deserialize(name.into_deserializer());
        key.map(Some).map_err(|error: Error| error.located(&self.at.field(name)))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        let Some((name, value)) = self.current.take() else {
            return Err(Error::new("invalid", "a value was asked for before its name"));
        };
        seed.deserialize(Node { value, at: self.at.field(name), siblings: self.known })
    }
}

struct Elements<'a> {
    elements: std::slice::Iter<'a, Value>,
    index: usize,
    at: &'a At<'a>,
}

impl Elements<'_> {
    /// A tuple that is longer than its type is wrong, as one that is shorter.
    fn finish(&self) -> Result<(), Error> {
        if self.elements.len() == 0 {
            return Ok(());
        }
        let (read, total) = (self.index, self.index + self.elements.len());
        Err(Error::new("wrongLength", format!("expected {read} elements, found {total}")))
    }
}

impl<'de> SeqAccess<'de> for &mut Elements<'_> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        let Some(value) = self.elements.next() else { return Ok(None) };
        let at = At { step: Step::Element(self.at, self.index), unknown: self.at.unknown };
        self.index += 1;
        seed.deserialize(Node { value, at, siblings: &[] }).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.elements.len())
    }
}

struct Variant<'a> {
    variant: &'a str,
    content: Option<&'a Value>,
    at: &'a At<'a>,
}

impl<'de, 'a> EnumAccess<'de> for Variant<'a> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Error> {
        let name: StrDeserializer<'_, Error> = self.variant.into_deserializer();
        let variant = seed.deserialize(name)?;
        Ok((variant, self))
    }
}

impl Variant<'_> {
    fn content(&self) -> Result<(At<'_>, &Value), Error> {
        let missing = || Error::new("wrongType", format!("{:?} needs a value: write {{\"{0}\": …}}", self.variant));
        self.content.map(|content| (self.at.field(self.variant), content)).ok_or_else(missing)
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        match self.content {
            None => Ok(()),
            Some(_) => Err(Error::new("wrongType", format!("{:?} is a word on its own", self.variant))),
        }
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Error> {
        let (at, value) = self.content()?;
        seed.deserialize(Node { value, at, siblings: &[] })
    }

    fn tuple_variant<V: Visitor<'de>>(self, _length: usize, visitor: V) -> Result<V::Value, Error> {
        let (at, value) = self.content()?;
        Node { value, at, siblings: &[] }.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, known: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        let (at, value) = self.content()?;
        Node { value, at, siblings: &[] }.deserialize_struct("", known, visitor)
    }
}

/// One thing that stopped the reading; the innermost place that saw it is where it stands.
#[derive(Debug)]
struct Error {
    pointer: Option<String>,
    code: &'static str,
    detail: String,
}

impl Error {
    fn new(code: &'static str, detail: impl Into<String>) -> Self {
        Self { pointer: None, code, detail: detail.into() }
    }

    fn located(mut self, at: &At<'_>) -> Self {
        self.pointer.get_or_insert_with(|| at.pointer());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.detail)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new("invalid", message.to_string())
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new("wrongType", format!("expected {expected}, found {}", describe(unexpected)))
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new("outOfRange", format!("expected {expected}, found {}", describe(unexpected)))
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        Self::new("wrongLength", format!("expected {expected}, found {length} elements"))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new("missingField", format!("the field {field:?} is missing"))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let hint = hint(field, expected);
        Self::new("unknownField", format!("there is no field {field:?} here{hint}"))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let hint = hint(variant, expected);
        Self::new("unknownWord", format!("{variant:?} is not one of {}{hint}", expected.join(", ")))
    }
}

fn unexpected(value: &Value) -> Unexpected<'_> {
    match value {
        Value::Null => Unexpected::Unit,
        Value::Bool(value) => Unexpected::Bool(*value),
        Value::Number(number) => number.as_f64().map_or(Unexpected::Other("number"), Unexpected::Float),
        Value::String(text) => Unexpected::Str(text),
        Value::Array(_) => Unexpected::Seq,
        Value::Object(_) => Unexpected::Map,
    }
}

/// Says what was found in JSON's words.
fn describe(unexpected: Unexpected<'_>) -> String {
    match unexpected {
        Unexpected::Unit | Unexpected::Option => "null".to_owned(),
        Unexpected::Bool(value) => value.to_string(),
        Unexpected::Str(text) if text.chars().count() > 40 => "a string".to_owned(),
        Unexpected::Str(text) => format!("the string {text:?}"),
        Unexpected::Seq => "an array".to_owned(),
        Unexpected::Map => "an object".to_owned(),
        Unexpected::Float(value) => format!("the number {value}"),
        other => other.to_string(),
    }
}

#[cfg(test)]
#[path = "strict_tests.rs"]
mod tests;
