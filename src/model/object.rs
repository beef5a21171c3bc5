//! JSON objects read from objects alone. The types that serde derives also take a list with
//! the fields' values in their order: `["x"]` would pass for `{"conversationId": "x"}`.

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{self, DeserializeOwned, IntoDeserializer, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, forward_to_deserialize_any};
use serde_json::{Error, Value};

use super::json;

/// Reads a text that somebody sent, nested `max_depth` deep at most.
///
/// # Errors
/// What is wrong with it: the text as JSON, a [flaw](json::Flaw), or not such a value.
pub fn read<T: DeserializeOwned>(text: &[u8], max_depth: usize) -> Result<T, String> {
    of(&parse(text, max_depth)?).map_err(|error| error.to_string())
}

/// The value of a text that somebody sent, nested `max_depth` deep at most.
///
/// # Errors
/// What is wrong with it.
pub fn parse(text: &[u8], max_depth: usize) -> Result<Value, String> {
    let text = std::str::from_utf8(text).map_err(|error| error.to_string())?;
    let value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    json::check(text, max_depth).map_err(|flaw| flaw.to_string())?;
    Ok(value)
}

/// A value as what it is declared to be.
///
/// # Errors
/// Where it is something else.
pub fn of<'v, T: Deserialize<'v>>(value: &'v Value) -> Result<T, Error> {
    T::deserialize(Declared(value))
}

#[derive(Clone, Copy)]
struct Declared<'v>(&'v Value);

impl<'v> IntoDeserializer<'v, Error> for Declared<'v> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'v> Deserializer<'v> for Declared<'v> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'v>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Array(items) => {
                let mut items = SeqDeserializer::new(items.iter().map(Declared));
                let value = visitor.visit_seq(&mut items)?;
                items.end()?;
                Ok(value)
            }
            Value::Object(fields) => {
                let fields = fields.iter().map(|(name, value)| (name.as_str(), Declared(value)));
                let mut fields = MapDeserializer::new(fields);
                let value = visitor.visit_map(&mut fields)?;
                fields.end()?;
                Ok(value)
            }
            plain => plain.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'v>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let found = match self.0 {
            Value::Object(_) => return self.deserialize_any(visitor),
            Value::Array(_) => Unexpected::Seq,
            Value::String(text) => Unexpected::Str(text),
            Value::Bool(is) => Unexpected::Bool(*is),
            Value::Number(_) => Unexpected::Other("number"),
            Value::Null => Unexpected::Unit,
        };
        Err(de::Error::invalid_type(found, &"an object"))
    }

    fn deserialize_option<V: Visitor<'v>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'v>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'v>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.0.deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        <V: Visitor<'v>>
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::routing::{RouteConfiguration, RouteStatus};

    fn configuration() -> Value {
        json!({
            "id": "c", "name": "Support", "status": "DISABLED",
            "rules": [{"id": "r", "destination": {"type": "QUEUE_ID", "id": "a"}, "weight": 70}],
        })
    }

    #[test]
    fn objects_are_read_as_serde_reads_them() {
        let text = configuration().to_string();
        let read: RouteConfiguration = read(text.as_bytes(), 8).unwrap();
        assert_eq!(read, serde_json::from_str(&text).unwrap());
        assert_eq!((read.status, read.rules[0].weight), (RouteStatus::Disabled, 70.0));
    }

    #[test]
    fn a_list_is_no_object_however_deep() {
        let mut listed = configuration();
        listed["rules"][0]["destination"] = json!(["QUEUE_ID", "a"]);
        let rule = json!(["r", null, null, {"type": "QUEUE_ID", "id": "a"}, 70]);
        let mut of_lists = configuration();
        of_lists["rules"] = json!([rule]);
        for value in
            [listed, of_lists, json!(["c", "Support", "SINGLE_QUEUE", null, []]), json!(null), json!(7)]
        {
            let refused = of::<RouteConfiguration>(&value).unwrap_err().to_string();
            assert!(refused.contains("expected an object"), "{refused}");
        }
    }

    #[test]
    fn what_no_reader_agrees_on_is_refused() {
        for text in [&br#"{"a":1,"a":2}"#[..], br#"{"a":"\u0000"}"#, b"[[[]]]", b"{", b"\xff", b"{} {}"] {
            assert!(read::<Value>(text, 2).is_err(), "{}", String::from_utf8_lossy(text));
        }
    }
}
