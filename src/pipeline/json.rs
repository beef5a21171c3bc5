//! Own values as JSON, byte for byte as serde_json writes them, for fewer instructions: the
//! names of fields are copied whole, and only texts that need an escape are looked at byte by byte.
//! What stages send and keep is written here; it was the largest part of what a record cost.

use std::fmt::{Display, Write as _};

use serde::ser::{self, Serialize, SerializeStruct as _, Serializer};
use serde_json::Error;

/// Under this name serde_json hands a text on that is JSON already.
const RAW: &str = "$serde_json::private::RawValue";

/// A JSON text that goes into what is written as it is, without white space around it. Whoever
/// makes one knows that it is JSON: it has been read as such.
#[derive(Clone, Copy, Debug)]
pub struct Verbatim<'a>(&'a str);

impl<'a> Verbatim<'a> {
    pub fn new(json: &'a str) -> Self {
        Self(json.trim_matches([' ', '\t', '\r', '\n']))
    }
}

impl Serialize for Verbatim<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut raw = serializer.serialize_struct(RAW, 1)?;
        raw.serialize_field(RAW, self.0)?;
        raw.end()
    }
}

/// Appends `value` to `bytes`.
///
/// # Panics
/// When it cannot be written as JSON, which for our own types is a bug.
pub fn append(bytes: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    value.serialize(&mut Writer { bytes, is_raw: false }).expect("own values are JSON");
}

struct Writer<'b> {
    bytes: &'b mut Vec<u8>,
    /// The next text is JSON already.
    is_raw: bool,
}

/// Whether a text stands in JSON as it is. Looks at all of it: that is done many bytes at a time.
fn is_plain(text: &[u8]) -> bool {
    !text.iter().fold(false, |special, byte| special | (*byte < 0x20) | (*byte == b'"') | (*byte == b'\\'))
}

impl Writer<'_> {
    fn text(&mut self, text: &str) -> Result<(), Error> {
        if !is_plain(text.as_bytes()) {
            return serde_json::to_writer(&mut *self.bytes, text);
        }
        self.plain(text);
        Ok(())
    }

    /// A text that needs no escape.
    fn plain(&mut self, text: &str) {
        self.bytes.reserve(text.len() + 2);
        self.bytes.push(b'"');
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(b'"');
    }

    fn number(&mut self, number: impl Serialize) -> Result<(), Error> {
        serde_json::to_writer(&mut *self.bytes, &number)
    }

    /// `{"name":`, of an enum's variant with a value; names in code need no escape.
    fn variant(&mut self, name: &'static str) {
        self.bytes.push(b'{');
        self.plain(name);
        self.bytes.push(b':');
    }
}

/// What is between brackets.
struct Within<'w, 'b> {
    writer: &'w mut Writer<'b>,
    is_first: bool,
    end: &'static [u8],
}

impl<'w, 'b> Within<'w, 'b> {
    fn open(writer: &'w mut Writer<'b>, bracket: u8, end: &'static [u8]) -> Result<Self, Error> {
        writer.bytes.push(bracket);
        Ok(Self { writer, is_first: true, end })
    }

    fn next(&mut self) {
        if !std::mem::take(&mut self.is_first) {
            self.writer.bytes.push(b',');
        }
    }

    fn element(&mut self, value: &(impl Serialize + ?Sized)) -> Result<(), Error> {
        self.next();
        value.serialize(&mut *self.writer)
    }

    fn field(&mut self, name: &'static str, value: &(impl Serialize + ?Sized)) -> Result<(), Error> {
        if self.end.is_empty() && name == RAW {
            self.writer.is_raw = true;
            return value.serialize(&mut *self.writer);
        }
        let bytes = &mut *self.writer.bytes;
        bytes.reserve(name.len() + 4);
        bytes.extend_from_slice(if std::mem::take(&mut self.is_first) { b"\"" } else { b",\"" });
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(b"\":");
        value.serialize(&mut *self.writer)
    }

    fn close(self) -> Result<(), Error> {
        self.writer.bytes.extend_from_slice(self.end);
        Ok(())
    }
}

macro_rules! numbers {
    ($($name:ident: $type:ty),*) => {
        $(fn $name(self, number: $type) -> Result<(), Error> {
            self.number(number)
        })*
    };
}

impl<'w, 'b> Serializer for &'w mut Writer<'b> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Within<'w, 'b>;
    type SerializeTuple = Within<'w, 'b>;
    type SerializeTupleStruct = Within<'w, 'b>;
    type SerializeTupleVariant = Within<'w, 'b>;
    type SerializeMap = Within<'w, 'b>;
    type SerializeStruct = Within<'w, 'b>;
    type SerializeStructVariant = Within<'w, 'b>;

    numbers!(
        serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i128: i128, serialize_u8: u8,
        serialize_u16: u16, serialize_u128: u128, serialize_f32: f32, serialize_f64: f64
    );

    fn serialize_i64(self, number: i64) -> Result<(), Error> {
        match u64::try_from(number) {
            Ok(number) => self.serialize_u64(number),
            Err(_) => self.number(number),
        }
    }

    fn serialize_u32(self, number: u32) -> Result<(), Error> {
        self.serialize_u64(number.into())
    }

    /// Most counts have one digit.
    fn serialize_u64(self, number: u64) -> Result<(), Error> {
        if number >= 10 {
            return self.number(number);
        }
        self.bytes.push(b'0' + number as u8);
        Ok(())
    }

    fn serialize_bool(self, value: bool) -> Result<(), Error> {
        self.bytes.extend_from_slice(if value { b"true" } else { b"false" });
        Ok(())
    }

    fn serialize_char(self, value: char) -> Result<(), Error> {
        self.text(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, text: &str) -> Result<(), Error> {
        if std::mem::take(&mut self.is_raw) {
            self.bytes.extend_from_slice(text.as_bytes());
            return Ok(());
        }
        self.text(text)
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<(), Error> {
        self.collect_seq(bytes)
    }

    fn serialize_none(self) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Error> {
        self.bytes.extend_from_slice(b"null");
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, name: &'static str) -> Result<(), Error> {
        self.plain(name);
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        self.variant(name);
        value.serialize(&mut *self)?;
        self.bytes.push(b'}');
        Ok(())
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Within<'w, 'b>, Error> {
        Within::open(self, b'[', b"]")
    }

    fn serialize_tuple(self, _: usize) -> Result<Within<'w, 'b>, Error> {
        Within::open(self, b'[', b"]")
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Within<'w, 'b>, Error> {
        Within::open(self, b'[', b"]")
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
        _: usize,
    ) -> Result<Within<'w, 'b>, Error> {
        self.variant(name);
        Within::open(self, b'[', b"]}")
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Within<'w, 'b>, Error> {
        Within::open(self, b'{', b"}")
    }

    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Within<'w, 'b>, Error> {
        match name == RAW {
            true => Ok(Within { writer: self, is_first: true, end: b"" }),
            false => Within::open(self, b'{', b"}"),
        }
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
        _: usize,
    ) -> Result<Within<'w, 'b>, Error> {
        self.variant(name);
        Within::open(self, b'{', b"}}")
    }

    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<(), Error> {
        struct Text<'b>(&'b mut Vec<u8>);
        impl std::fmt::Write for Text<'_> {
            fn write_str(&mut self, text: &str) -> std::fmt::Result {
                self.0.extend_from_slice(text.as_bytes());
                Ok(())
            }
        }
        let start = self.bytes.len();
        self.bytes.push(b'"');
        write!(Text(self.bytes), "{value}").map_err(<Error as ser::Error>::custom)?;
        if is_plain(&self.bytes[start + 1..]) {
            self.bytes.push(b'"');
            return Ok(());
        }
        self.bytes.truncate(start);
        serde_json::to_writer(&mut *self.bytes, &value.to_string())
    }
}

impl ser::SerializeMap for Within<'_, '_> {
    type Ok = ();
    type Error = Error;

    /// Keys are texts; what is none, such as a number, is put between quotes.
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        self.next();
        let start = self.writer.bytes.len();
        key.serialize(&mut *self.writer)?;
        match self.writer.bytes[start] {
            b'"' => {}
            b'{' | b'[' => return Err(ser::Error::custom("key must be a string")),
            _ => {
                self.writer.bytes.insert(start, b'"');
                self.writer.bytes.push(b'"');
            }
        }
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.writer.bytes.push(b':');
        value.serialize(&mut *self.writer)
    }

    fn end(self) -> Result<(), Error> {
        self.close()
    }
}

/// The traits differ in the name of their one method.
macro_rules! elements {
    ($($trait:ident $method:ident),*) => {
        $(impl ser::$trait for Within<'_, '_> {
            type Ok = ();
            type Error = Error;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
                self.element(value)
            }

            fn end(self) -> Result<(), Error> {
                self.close()
            }
        })*
    };
}

elements!(
    SerializeSeq serialize_element,
    SerializeTuple serialize_element,
    SerializeTupleStruct serialize_field,
    SerializeTupleVariant serialize_field
);

macro_rules! fields {
    ($($trait:ident),*) => {
        $(impl ser::$trait for Within<'_, '_> {
            type Ok = ();
            type Error = Error;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), Error> {
                self.field(name, value)
            }

            fn end(self) -> Result<(), Error> {
                self.close()
            }
        })*
    };
}

fields!(SerializeStruct, SerializeStructVariant);

#[cfg(test)]
mod tests;
