//! JSON values as OTLP values.

use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList, any_value};
use serde_json::Value;

/// An attribute.
pub(crate) fn attribute(key: &str, value: impl Into<Attribute>) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: value.into().0 }), ..KeyValue::default() }
}

/// What an attribute may hold.
pub(crate) struct Attribute(Option<any_value::Value>);

impl From<&str> for Attribute {
    fn from(text: &str) -> Self {
        Self(Some(any_value::Value::StringValue(text.to_owned())))
    }
}

impl From<String> for Attribute {
    fn from(text: String) -> Self {
        Self(Some(any_value::Value::StringValue(text)))
    }
}

impl From<u32> for Attribute {
    fn from(number: u32) -> Self {
        Self(Some(any_value::Value::IntValue(i64::from(number))))
    }
}

impl From<u64> for Attribute {
    fn from(number: u64) -> Self {
        Self(Some(unsigned(number)))
    }
}

impl From<bool> for Attribute {
    fn from(value: bool) -> Self {
        Self(Some(any_value::Value::BoolValue(value)))
    }
}

impl From<&[String]> for Attribute {
    fn from(texts: &[String]) -> Self {
        let value = |text: &String| AnyValue { value: Self::from(text.as_str()).0 };
        Self(Some(any_value::Value::ArrayValue(ArrayValue { values: texts.iter().map(value).collect() })))
    }
}

impl From<&Value> for Attribute {
    fn from(value: &Value) -> Self {
        Self(any_value(value).value)
    }
}

/// OTLP has signed integers only: what does not fit is a string, so that no digit is lost.
fn unsigned(number: u64) -> any_value::Value {
    i64::try_from(number).map_or_else(|_| any_value::Value::StringValue(number.to_string()), any_value::Value::IntValue)
}

fn any_value(value: &Value) -> AnyValue {
    let value = match value {
        Value::Null => None,
        Value::Bool(value) => Some(any_value::Value::BoolValue(*value)),
        Value::Number(number) => Some(match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(number), ..) => any_value::Value::IntValue(number),
            (None, Some(number), _) => unsigned(number),
            (None, None, number) => any_value::Value::DoubleValue(number.unwrap_or(f64::NAN)),
        }),
        Value::String(text) => Some(any_value::Value::StringValue(text.clone())),
        Value::Array(values) => {
            Some(any_value::Value::ArrayValue(ArrayValue { values: values.iter().map(any_value).collect() }))
        }
        Value::Object(members) => Some(any_value::Value::KvlistValue(KeyValueList {
            values: members.iter().map(|(key, value)| attribute(key, value)).collect(),
        })),
    };
    AnyValue { value }
}
