//! An event's attributes, as far as rules ask for them.

use crate::json::Value;
use crate::tree::{Node, Tree, EVENT, TEXTS};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyString};
use std::borrow::Cow;

/// Those with a field of their own (`mesh.event.CONTEXT`); all others are extensions.
const CONTEXT: [&str; 7] =
    ["id", "source", "type", "subject", "time", "datacontenttype", "dataschema"];

/// Those that rules ask for.
#[derive(Default)]
pub struct Asked {
    context: Vec<(Py<PyString>, Node)>,
    version: Option<Node>,
    extensions: bool,
}

impl Asked {
    /// The node of an attribute as it is (below EVENT), or of its canonical text (below TEXTS).
    pub fn reach(&mut self, py: Python<'_>, tree: &mut Tree, root: Node, name: &str) -> Node {
        let known = tree.below(root, name.as_bytes());
        let node = tree.reach(root, name.as_bytes());
        if known.is_none() {
            if CONTEXT.contains(&name) {
                self.context.push((PyString::intern(py, name).unbind(), node));
            } else if name == "specversion" {
                self.version = Some(node);
            } else {
                self.extensions = true;
            }
        }
        node
    }

    /// What an event has of them.
    pub fn of<'py>(&self, tree: &Tree, event: &Bound<'py, PyAny>) -> PyResult<Vec<Found<'py>>> {
        let py = event.py();
        let mut found = Vec::with_capacity(self.context.len() + 2);
        for (name, node) in &self.context {
            let value = event.getattr(name.bind(py))?;
            if !value.is_none() {
                found.push(Found { node: *node, value, text: false });
            }
        }
        if let Some(node) = self.version {
            let value = intern!(py, "1.0").clone().into_any();
            found.push(Found { node, value, text: false });
        }
        if self.extensions {
            let extensions = event.getattr(intern!(py, "extensions"))?;
            for (name, value) in extensions.cast::<PyDict>()? {
                let name = name.cast::<PyString>()?.to_string_lossy();
                for (root, text) in [(EVENT, false), (TEXTS, true)] {
                    if let Some(node) = tree.below(root, name.as_bytes()) {
                        found.push(Found { node, value: value.clone(), text });
                    }
                }
            }
        }
        Ok(found)
    }
}

/// One attribute.
pub struct Found<'py> {
    pub node: Node,
    value: Bound<'py, PyAny>,
    /// Its canonical text is asked for.
    text: bool,
}

impl Found<'_> {
    /// As rules look at it; None of what no attribute can be.
    pub fn value(&self) -> Option<Value<'_>> {
        let value = &self.value;
        if let Ok(text) = value.cast::<PyString>() {
            return Some(Value::Text(bytes(text)));
        }
        if let Ok(flag) = value.cast::<PyBool>() {
            let flag = flag.is_true();
            let text: &[u8] = if flag { b"true" } else { b"false" };
            return Some(if self.text { Value::Text(text.into()) } else { Value::Bool(flag) });
        }
        if self.text {
            let text = value.str().ok()?;
            return Some(Value::Text(bytes(&text).into_owned().into()));
        }
        if !value.is_instance_of::<PyInt>() && !value.is_instance_of::<PyFloat>() {
            return None;
        }
        let sign = || if value.lt(0).unwrap_or(false) { -1.0 } else { 1.0 };
        Some(Value::Number(value.extract().unwrap_or_else(|_| sign() * f64::INFINITY)))
    }
}

/// The text in UTF-8, in which a lone surrogate takes three bytes, as in JSON.
fn bytes<'a>(text: &'a Bound<'_, PyString>) -> Cow<'a, [u8]> {
    if let Ok(text) = text.to_str() {
        return Cow::Borrowed(text.as_bytes());
    }
    let encoded = text.call_method1("encode", ("utf-8", "surrogatepass"));
    Cow::Owned(encoded.and_then(|bytes| bytes.extract()).unwrap_or_default())
}
