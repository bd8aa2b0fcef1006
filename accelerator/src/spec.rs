//! What `triggers/native.py` makes of a filter, read.

use crate::attributes::Asked;
use crate::index::{Group, Way};
use crate::places::{Key, Scalar};
use crate::rule::{Condition, Field, Table, Test, Wildcard};
use crate::tree::{Node, Tree, DATA, EVENT, TEXTS};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyList, PyString, PyTuple};

/// How many bytes of a wildcard's text find it, of a text that has as many.
const PARTS: [usize; 3] = [8, 5, 3];
const MOST_PARTS: usize = 32;

type Groups<'py> = Vec<(String, Vec<String>, Bound<'py, PyList>)>;
/// The groups of each, each with the root, the path and the keys; whether they are full, and flat.
pub type Ways<'py> = Vec<(Groups<'py>, bool, bool)>;

pub struct Reader<'a, 'py> {
    py: Python<'py>,
    tree: &'a mut Tree,
    asked: &'a mut Asked,
    /// Something asked for data.
    pub looks: bool,
}

impl<'a, 'py> Reader<'a, 'py> {
    pub fn new(py: Python<'py>, tree: &'a mut Tree, asked: &'a mut Asked) -> Self {
        Reader { py, tree, asked, looks: false }
    }

    pub fn ways(&mut self, ways: Ways) -> PyResult<Vec<Way>> {
        let mut found = Vec::with_capacity(ways.len());
        for (groups, full, flat) in ways {
            let groups = groups.into_iter().map(|group| self.group(group));
            found.push(Way { groups: groups.collect::<PyResult<_>>()?, full, flat });
        }
        Ok(found)
    }

    fn group(
        &mut self,
        (root, path, keys): (String, Vec<String>, Bound<'_, PyList>),
    ) -> PyResult<Group> {
        let (mut node, below) = match root.as_str() {
            "data" => (DATA, &path[..]),
            root => {
                let none = || PyValueError::new_err("no path");
                let (name, below) = path.split_first().ok_or_else(none)?;
                let root = if root == "text" { TEXTS } else { EVENT };
                (self.asked.reach(self.py, self.tree, root, name), below)
            }
        };
        for name in below {
            node = self.tree.reach(node, name.as_bytes());
        }
        let keys = keys.iter().map(|key| read_key(&key)).collect::<PyResult<Vec<_>>>()?;
        Ok(Group { node, keys })
    }

    /// That all of these hold.
    pub fn conditions(&mut self, specs: &[Bound<'_, PyAny>]) -> PyResult<Condition> {
        if let [one] = specs {
            return self.condition(one);
        }
        let parts = specs.iter().map(|one| self.condition(one));
        Ok(Condition::All(parts.collect::<PyResult<_>>()?))
    }

    /// `("pattern", table)`, `("text", root, name, test)`, `("all", conditions)`, `("any",
    /// conditions)` or `("not", condition)`.
    fn condition(&mut self, spec: &Bound<'_, PyAny>) -> PyResult<Condition> {
        let spec = spec.cast::<PyTuple>()?;
        let kind: String = spec.get_item(0)?.extract()?;
        let inner = spec.get_item(1)?;
        Ok(match kind.as_str() {
            "not" => Condition::Not(Box::new(self.condition(&inner)?)),
            "text" => {
                let root = if inner.extract::<String>()? == "text" { TEXTS } else { EVENT };
                let name: String = spec.get_item(2)?.extract()?;
                let node = self.asked.reach(self.py, self.tree, root, &name);
                Condition::Text(node, Box::new(read_test(&spec.get_item(3)?)?))
            }
            "pattern" => Condition::Pattern(self.table(&inner, EVENT)?),
            _ => {
                let parts = inner.cast::<PyList>()?.iter().map(|one| self.condition(&one));
                let parts = parts.collect::<PyResult<_>>()?;
                if kind == "any" { Condition::Any(parts) } else { Condition::All(parts) }
            }
        })
    }

    /// `[(name, field)]`.
    fn table(&mut self, spec: &Bound<'_, PyAny>, node: Node) -> PyResult<Table> {
        let mut fields = Vec::new();
        for one in spec.cast::<PyList>()? {
            let (name, inner): (String, Bound<'_, PyAny>) = one.extract()?;
            let at = if node == EVENT && name != "data" {
                self.asked.reach(self.py, self.tree, EVENT, &name)
            } else {
                self.tree.reach(node, name.as_bytes())
            };
            self.looks |= at == DATA;
            fields.push((at, self.field(&inner, at)?));
        }
        let absent = fields.iter().all(|(_, field)| field.absent());
        Ok(Table { fields: fields.into(), absent })
    }

    /// A table, or `(tests, absent)`.
    fn field(&mut self, spec: &Bound<'_, PyAny>, node: Node) -> PyResult<Field> {
        let Ok(leaf) = spec.cast::<PyTuple>() else {
            return Ok(Field::Table(self.table(spec, node)?));
        };
        let tests = leaf.get_item(0)?;
        let tests = tests.cast::<PyList>()?.iter().map(|test| read_test(&test));
        let absent = leaf.get_item(1)?.extract()?;
        Ok(Field::Leaf { tests: tests.collect::<PyResult<_>>()?, absent })
    }
}

fn bytes<T: for<'a> From<&'a [u8]>>(value: &Bound<'_, PyAny>) -> PyResult<T> {
    Ok(value.cast::<PyString>()?.to_str()?.as_bytes().into())
}

fn read_scalar(value: &Bound<'_, PyAny>) -> PyResult<Scalar> {
    Ok(if value.is_none() {
        Scalar::Null
    } else if value.is_instance_of::<PyBool>() {
        Scalar::Bool(value.extract()?)
    } else if value.is_instance_of::<PyString>() {
        Scalar::Text(bytes(value)?)
    } else {
        Scalar::number(value.extract()?)
    })
}

fn read_test(spec: &Bound<'_, PyAny>) -> PyResult<Test> {
    let spec = spec.cast::<PyTuple>()?;
    let kind: String = spec.get_item(0)?.extract()?;
    let at = |n| spec.get_item(n);
    Ok(match kind.as_str() {
        "is" => match read_scalar(&at(1)?)? {
            Scalar::Null => Test::Null,
            Scalar::Bool(value) => Test::Bool(value),
            Scalar::Number(bits) => Test::Number(f64::from_bits(bits)),
            Scalar::Text(text) => Test::Text(text),
        },
        "prefix" => Test::Prefix(bytes(&at(1)?)?),
        "suffix" => Test::Suffix(bytes(&at(1)?)?),
        "like" => {
            let parts = at(1)?.cast::<PyList>()?.iter().map(|part| bytes(&part));
            let mut parts = parts.collect::<PyResult<Vec<_>>>()?;
            let tail = parts.pop().ok_or_else(|| PyValueError::new_err("no parts"))?;
            Test::Wildcard(Box::new(Wildcard { head: parts.remove(0), middle: parts, tail }))
        }
        "range" => Test::Numeric(at(1)?.extract()?, at(2)?.extract()?),
        "none" => {
            let tests = at(1)?.cast::<PyList>()?.iter().map(|test| read_test(&test));
            Test::NoneOf(tests.collect::<PyResult<_>>()?)
        }
        "there" => Test::There,
        other => return Err(PyValueError::new_err(format!("no test {other}"))),
    })
}

fn read_key(spec: &Bound<'_, PyAny>) -> PyResult<Key> {
    let spec = spec.cast::<PyTuple>()?;
    let kind: String = spec.get_item(0)?.extract()?;
    let at = |n| spec.get_item(n);
    Ok(match kind.as_str() {
        "is" => Key::Scalar(read_scalar(&at(1)?)?),
        "prefix" => Key::Prefix(bytes(&at(1)?)?),
        "suffix" => Key::Suffix(bytes(&at(1)?)?),
        "like" => {
            let (head, tail, inner): (String, String, String) =
                (at(1)?.extract()?, at(2)?.extract()?, at(3)?.extract()?);
            let inner = inner.as_bytes();
            let size = PARTS.iter().copied().find(|size| *size <= inner.len());
            let size = size.unwrap_or(inner.len());
            let parts = inner.windows(size.max(1)).take(MOST_PARTS);
            let mut options: Vec<Key> = parts.map(|part| Key::Part(part.into())).collect();
            if !head.is_empty() {
                options.push(Key::Prefix(head.as_bytes()[..head.len().min(16)].into()));
            }
            if !tail.is_empty() {
                let from = tail.len().saturating_sub(16);
                options.push(Key::Suffix(tail.as_bytes()[from..].into()));
            }
            Key::AnyOf(options)
        }
        "range" => Key::Range(at(1)?.extract()?, at(2)?.extract()?),
        "there" => Key::There,
        other => return Err(PyValueError::new_err(format!("no key {other}"))),
    })
}
