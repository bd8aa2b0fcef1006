//! `funcrt_accelerator`: filters of `triggers.Index`, matched natively.

mod attributes;
mod bucket;
mod index;
mod json;
mod places;
mod rule;
mod shape;
mod spec;
mod tree;

use attributes::Asked;
use index::{Index, Rule};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PySet};
use spec::{Reader, Ways};

/// Of what `triggers/native.py` gives: the two must agree.
const FORMAT: u32 = 2;

/// Rules by number. `add` takes what `triggers/native.py` makes of a filter.
#[pyclass]
struct Engine {
    index: Index<Py<PyAny>>,
    asked: Asked,
    /// How deep data may be nested, and how many bytes it may have, to be looked into.
    depth: usize,
    most: usize,
}

#[pymethods]
impl Engine {
    #[new]
    fn new(depth: usize, most: usize) -> Self {
        Engine { index: Index::new(), asked: Asked::default(), depth, most }
    }

    fn add(
        &mut self,
        key: Bound<'_, PyAny>,
        conditions: Vec<Bound<'_, PyAny>>,
        ways: Ways,
        doubtful: bool,
    ) -> PyResult<u32> {
        let mut reader = Reader::new(key.py(), &mut self.index.tree, &mut self.asked);
        let condition = reader.conditions(&conditions)?;
        let ways = reader.ways(ways)?;
        let looks = reader.looks;
        Ok(self.index.add(key.unbind(), Rule { condition, doubtful, looks }, ways))
    }

    fn remove(slf: &Bound<'_, Self>, id: u32) {
        let key = slf.borrow_mut().index.remove(id);
        drop(key); // which may run Python, and that may come back here
    }

    fn choose(&mut self, py: Python<'_>, ways: Ways) -> PyResult<Vec<Vec<usize>>> {
        let mut reader = Reader::new(py, &mut self.index.tree, &mut self.asked);
        let mut ways = reader.ways(ways)?;
        Ok(ways.iter_mut().map(|way| self.index.choose(&mut way.groups)).collect())
    }

    fn find<'py>(
        slf: &Bound<'py, Self>,
        event: &Bound<'py, PyAny>,
    ) -> PyResult<(Bound<'py, PySet>, Bound<'py, PyList>)> {
        let py = slf.py();
        let (sure, doubtful) = slf.borrow().found(event)?;
        // Only now: to make containers, and to hash keys, may run Python.
        Ok((PySet::new(py, sure)?, PyList::new(py, doubtful)?))
    }
}

type Keys = Vec<Py<PyAny>>;

impl Engine {
    fn found(&self, event: &Bound<'_, PyAny>) -> PyResult<(Keys, Keys)> {
        let py = event.py();
        let data = event.getattr(intern!(py, "data"))?;
        let body = data.cast::<PyBytes>().ok().map(|bytes| bytes.as_bytes());
        let body = body.filter(|body| body.len() <= self.most);
        let found = self.asked.of(&self.index.tree, event)?;
        let mut attributes = Vec::with_capacity(found.len() + 1);
        attributes.extend(found.iter().filter_map(|one| Some((one.node, one.value()?))));
        let (sure, doubtful) = self.index.matches(attributes, body, self.depth);
        let keys = |some: Vec<&Py<PyAny>>| some.into_iter().map(|key| key.clone_ref(py)).collect();
        Ok((keys(sure), keys(doubtful)))
    }
}

#[pymodule]
fn funcrt_accelerator(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("FORMAT", FORMAT)?;
    module.add_class::<Engine>()
}
