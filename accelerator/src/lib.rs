//! `funcrt_accelerator`: the patterns of `triggers.Index` that look at data alone, matched natively.

mod index;
mod json;
mod places;
mod rule;
mod tree;

use index::{Group, Index, Rule};
use places::{Key, Scalar};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyList, PyString, PyTuple};
use rule::{Field, Table, Test};
use tree::Node;

/// How many bytes of a wildcard's text find it, of a text that has as many.
const PARTS: [usize; 3] = [8, 5, 3];
const MOST_PARTS: usize = 32;

type Ways<'py> = Vec<Vec<(Vec<String>, Bound<'py, PyList>)>>;

/// Rules by number. `add` takes what `triggers/native.py` makes of a pattern.
#[pyclass]
struct Engine {
    index: Index<Py<PyAny>>,
    depth: usize,
}

#[pymethods]
impl Engine {
    #[new]
    fn new(depth: usize) -> Self {
        Engine { index: Index::new(), depth }
    }

    fn add(
        &mut self,
        key: Py<PyAny>,
        alternatives: Vec<Bound<'_, PyAny>>,
        ways: Ways,
    ) -> PyResult<u32> {
        let root = self.index.tree.root();
        let mut tables = Vec::new();
        for one in alternatives {
            let field = self.field(&one, root)?;
            let absent = field.absent();
            tables.push(Table { fields: vec![(root, field)], absent });
        }
        let ways = self.ways(ways)?;
        Ok(self.index.add(Rule { key, alternatives: tables }, ways))
    }

    fn remove(&mut self, id: u32) {
        self.index.remove(id);
    }

    fn choose(&mut self, ways: Ways) -> PyResult<Vec<Vec<usize>>> {
        let mut ways = self.ways(ways)?;
        Ok(ways.iter_mut().map(|way| self.index.choose(way)).collect())
    }

    fn find<'py>(&mut self, body: &Bound<'py, PyBytes>) -> PyResult<Bound<'py, PyList>> {
        let py = body.py();
        let found = self.index.matches(body.as_bytes(), self.depth);
        PyList::new(py, found.into_iter().map(|key| key.clone_ref(py)))
    }
}

impl Engine {
    fn ways(&mut self, ways: Ways) -> PyResult<Vec<Vec<Group>>> {
        ways.into_iter().map(|way| way.into_iter().map(|group| self.group(group)).collect()).collect()
    }

    fn group(&mut self, (path, keys): (Vec<String>, Bound<'_, PyList>)) -> PyResult<Group> {
        let tree = &mut self.index.tree;
        let node = path.iter().fold(tree.root(), |node, name| tree.reach(node, name.as_bytes()));
        let keys = keys.iter().map(|key| read_key(&key)).collect::<PyResult<Vec<_>>>()?;
        Ok(Group { node, keys })
    }

    /// `("leaf", tests, absent)` or `("table", [(name, field)])`.
    fn field(&mut self, spec: &Bound<'_, PyAny>, node: Node) -> PyResult<Field> {
        let spec = spec.cast::<PyTuple>()?;
        let below = spec.get_item(1)?;
        let below = below.cast::<PyList>()?;
        if spec.len() == 3 {
            let tests = below.iter().map(|test| read_test(&test)).collect::<PyResult<_>>()?;
            return Ok(Field::Leaf { tests, absent: spec.get_item(2)?.extract()? });
        }
        let mut fields = Vec::new();
        for one in below {
            let (name, inner): (String, Bound<'_, PyAny>) = one.extract()?;
            let at = self.index.tree.reach(node, name.as_bytes());
            fields.push((at, self.field(&inner, at)?));
        }
        let absent = fields.iter().all(|(_, field)| field.absent());
        Ok(Field::Table(Table { fields, absent }))
    }
}

fn bytes(value: &Bound<'_, PyAny>) -> PyResult<Box<[u8]>> {
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
            Test::Wildcard(parts.remove(0), parts, tail)
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
                options.push(Key::Prefix(head.as_bytes().iter().take(16).copied().collect()));
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

#[pymodule]
fn funcrt_accelerator(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Engine>()
}
