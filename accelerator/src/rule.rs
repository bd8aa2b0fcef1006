//! A filter, matched as `triggers/dialects.py` and `match.py` say, which are the semantics.

use crate::bucket::Bytes;
use crate::json::Value;
use crate::tree::Node;
use memchr::memmem;

/// Small, as all here: what is matched in full is mostly not in the cache.
pub enum Test {
    Null,
    Bool(bool),
    Number(f64),
    Text(Bytes),
    Prefix(Bytes),
    Suffix(Bytes),
    Wildcard(Box<Wildcard>),
    Numeric(f64, f64),
    NoneOf(Box<[Test]>),
    There,
}

/// What a text begins with, what comes in this order, and what it ends with.
pub struct Wildcard {
    pub head: Bytes,
    pub middle: Vec<Bytes>,
    pub tail: Bytes,
}

impl Test {
    fn takes(&self, value: &Value) -> bool {
        match (self, value) {
            (Test::There, _) => true,
            (Test::NoneOf(tests), _) => !tests.iter().any(|test| test.takes(value)),
            (Test::Null, Value::Null) => true,
            (Test::Bool(wanted), Value::Bool(found)) => wanted == found,
            (Test::Number(wanted), Value::Number(found)) => wanted == found,
            (Test::Numeric(low, high), Value::Number(found)) => low <= found && found <= high,
            (Test::Text(wanted), Value::Text(found)) => wanted[..] == found[..],
            (Test::Prefix(wanted), Value::Text(found)) => found.starts_with(&wanted[..]),
            (Test::Suffix(wanted), Value::Text(found)) => found.ends_with(&wanted[..]),
            (Test::Wildcard(wanted), Value::Text(found)) => wanted.fits(found),
            _ => false,
        }
    }
}

impl Wildcard {
    fn fits(&self, text: &[u8]) -> bool {
        let (head, tail) = (&self.head[..], &self.tail[..]);
        let least = head.len() + tail.len();
        if text.len() < least || !text.starts_with(head) || !text.ends_with(tail) {
            return false;
        }
        let mut rest = &text[head.len()..text.len() - tail.len()];
        self.middle.iter().all(|part| match memmem::find(rest, part) {
            Some(at) => {
                rest = &rest[at + part.len()..];
                true
            }
            None => false,
        })
    }
}

pub enum Field {
    Leaf { tests: Box<[Test]>, absent: bool },
    Table(Table),
}

pub struct Table {
    pub fields: Box<[(Node, Field)]>,
    pub absent: bool,
}

/// A condition on an event: its attributes, and its data where it is JSON, by their nodes.
pub enum Condition {
    Pattern(Table),
    /// That of an attribute's text.
    Text(Node, Box<Test>),
    All(Box<[Condition]>),
    Any(Box<[Condition]>),
    Not(Box<Condition>),
}

impl Condition {
    pub fn holds(&self, event: Fields) -> bool {
        match self {
            Condition::Pattern(table) => table.holds(event),
            Condition::Text(node, test) => get(event, *node).is_some_and(|text| test.takes(text)),
            Condition::All(parts) => parts.iter().all(|part| part.holds(event)),
            Condition::Any(parts) => parts.iter().any(|part| part.holds(event)),
            Condition::Not(inner) => !inner.holds(event),
        }
    }
}

type Fields<'v, 'a> = &'v [(Node, Value<'a>)];

impl Field {
    /// Whether it may be missing.
    pub fn absent(&self) -> bool {
        match self {
            Field::Leaf { absent, .. } => *absent,
            Field::Table(table) => table.absent,
        }
    }

    fn matches(&self, value: Option<&Value>) -> bool {
        match self {
            Field::Leaf { tests, .. } => {
                any_leaf(value, &mut |leaf| tests.iter().any(|test| test.takes(leaf)))
            }
            Field::Table(table) => any_object(value, &mut |fields| table.matches(fields)),
        }
    }

    /// Whether it may be, and is, missing in all of these.
    fn missing(&self, values: &[Option<&Value>]) -> bool {
        self.absent()
            && match self {
                Field::Leaf { .. } => {
                    !values.iter().any(|value| any_leaf(*value, &mut |_| true))
                }
                Field::Table(table) => {
                    let mut objects = Vec::new();
                    for value in values {
                        any_object(*value, &mut |fields| {
                            objects.push(fields);
                            false
                        });
                    }
                    table.missing(&objects)
                }
            }
    }
}

impl Table {
    fn holds(&self, found: Fields) -> bool {
        self.matches(found) || (self.absent && self.missing(&[found]))
    }

    fn matches(&self, found: Fields) -> bool {
        let mut some = false;
        for (node, field) in &self.fields {
            let value = get(found, *node);
            if field.matches(value) {
                some = true;
            } else if !field.missing(&[value]) {
                return false;
            }
        }
        some
    }

    fn missing(&self, objects: &[Fields]) -> bool {
        self.fields.iter().all(|(node, field)| {
            let values: Vec<_> = objects.iter().map(|found| get(found, *node)).collect();
            field.missing(&values)
        })
    }
}

fn get<'v, 'a>(fields: Fields<'v, 'a>, node: Node) -> Option<&'v Value<'a>> {
    fields.iter().find(|(held, _)| *held == node).map(|(_, value)| value)
}

/// Whether one of the leaves, of an array any, is such.
fn any_leaf(value: Option<&Value>, such: &mut impl FnMut(&Value) -> bool) -> bool {
    match value {
        None | Some(Value::Object(_)) => false,
        Some(Value::List(items)) => items.iter().any(|item| any_leaf(Some(item), such)),
        Some(leaf) => such(leaf),
    }
}

fn any_object<'v, 'a>(
    value: Option<&'v Value<'a>>,
    such: &mut impl FnMut(Fields<'v, 'a>) -> bool,
) -> bool {
    match value {
        Some(Value::Object(fields)) => such(fields),
        Some(Value::List(items)) => items.iter().any(|item| any_object(Some(item), such)),
        _ => false,
    }
}
