//! What is filed under the values of one name, as `triggers/field.py` files it.

use crate::json::Value;
use rustc_hash::{FxHashMap, FxHasher};
use std::hash::Hasher;

/// A rule's number.
pub type Id = u32;
type Buckets<K> = FxHashMap<K, Vec<Id>>;

/// A value, or kind of value, that a name may have.
#[derive(Clone)]
pub enum Key {
    Scalar(Scalar),
    Prefix(Box<[u8]>),
    Suffix(Box<[u8]>),
    /// A part of the text that a wildcard has.
    Part(Box<[u8]>),
    Range(f64, f64),
    There,
    /// Each finds it: the one with the fewest rules is to be chosen.
    AnyOf(Vec<Key>),
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Scalar {
    Null,
    Bool(bool),
    /// A double's bits; zero has one sign.
    Number(u64),
    Text(Box<[u8]>),
}

impl Scalar {
    pub fn number(value: f64) -> Self {
        Scalar::Number((value + 0.0).to_bits())
    }

    pub fn hashed(&self) -> u64 {
        match self {
            Scalar::Null => hash(0, b""),
            Scalar::Bool(value) => hash(1, &[u8::from(*value)]),
            Scalar::Number(bits) => hash(2, &bits.to_le_bytes()),
            Scalar::Text(text) => hash(3, text),
        }
    }
}

/// What `Scalar::hashed` is of a leaf.
pub fn hashed(leaf: &Value) -> u64 {
    match leaf {
        Value::Text(text) => hash(3, text),
        Value::Number(value) => hash(2, &(value + 0.0).to_bits().to_le_bytes()),
        Value::Bool(value) => hash(1, &[u8::from(*value)]),
        _ => hash(0, b""),
    }
}

fn hash(kind: u8, bytes: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write_u8(kind);
    hasher.write(bytes);
    hasher.finish()
}

#[derive(Default)]
pub struct Place {
    texts: Buckets<Box<[u8]>>,
    scalars: Buckets<Scalar>,
    prefixes: Buckets<Box<[u8]>>,
    suffixes: Buckets<Box<[u8]>>,
    parts: Buckets<Box<[u8]>>,
    /// What lengths of those there are, the shortest first.
    lengths: [Vec<usize>; 3],
    /// By the size, and the number, of the cells of a line of all doubles that a range touches.
    spans: Vec<(u32, FxHashMap<i64, Vec<(f64, f64, Id)>>)>,
    /// Ranges without an upper end, by their lower; and the other way round.
    above: Vec<(f64, Id)>,
    below: Vec<(f64, Id)>,
    there: Vec<Id>,
    /// How many are found by a scalar here together with values of other names.
    pub shared: FxHashMap<Scalar, usize>,
}

impl Place {
    pub fn find(&self, value: &Value, found: &mut Vec<Id>) {
        found.extend_from_slice(&self.there);
        match value {
            Value::Text(text) => self.find_text(text, found),
            Value::Number(number) => {
                add(&self.scalars, &Scalar::number(*number), found);
                self.find_number(*number, found);
            }
            Value::Null => add(&self.scalars, &Scalar::Null, found),
            Value::Bool(value) => add(&self.scalars, &Scalar::Bool(*value), found),
            _ => {}
        }
    }

    fn find_text(&self, text: &[u8], found: &mut Vec<Id>) {
        add(&self.texts, text, found);
        for &length in self.lengths[0].iter().take_while(|length| **length <= text.len()) {
            add(&self.prefixes, &text[..length], found);
        }
        for &length in self.lengths[1].iter().take_while(|length| **length <= text.len()) {
            add(&self.suffixes, &text[text.len() - length..], found);
        }
        for &length in self.lengths[2].iter().take_while(|length| **length <= text.len()) {
            for part in text.windows(length) {
                add(&self.parts, part, found);
            }
        }
    }

    fn find_number(&self, number: f64, found: &mut Vec<Id>) {
        let at = ordered(number);
        for (size, cells) in &self.spans {
            for (low, high, id) in cells.get(&(at >> size)).into_iter().flatten() {
                if *low <= number && number <= *high {
                    found.push(*id);
                }
            }
        }
        let end = self.above.partition_point(|(low, _)| *low <= number);
        found.extend(self.above[..end].iter().map(|(_, id)| *id));
        let start = self.below.partition_point(|(high, _)| *high < number);
        found.extend(self.below[start..].iter().map(|(_, id)| *id));
    }

    /// About how many rules a value that this key finds is looked at for in vain.
    pub fn cost(&self, key: &Key) -> usize {
        match key {
            Key::Scalar(scalar) => {
                let held = match scalar {
                    Scalar::Text(text) => count(&self.texts, text),
                    other => self.scalars.get(other).map_or(0, Vec::len),
                };
                held + self.shared.get(scalar).copied().unwrap_or(0)
            }
            Key::Prefix(text) => 2 + count(&self.prefixes, text),
            Key::Suffix(text) => 2 + count(&self.suffixes, text),
            Key::Part(text) => 4 + count(&self.parts, text),
            Key::Range(low, high) if low.is_finite() && high.is_finite() => 16,
            Key::Range(..) => 1_000,
            Key::There | Key::AnyOf(_) => 1_000_000,
        }
    }

    pub fn add(&mut self, key: &Key, id: Id) {
        match key {
            Key::Scalar(Scalar::Text(text)) => put(&mut self.texts, text, id),
            Key::Scalar(scalar) => self.scalars.entry(scalar.clone()).or_default().push(id),
            Key::Prefix(text) => self.text(0, text, id),
            Key::Suffix(text) => self.text(1, text, id),
            Key::Part(text) => self.text(2, text, id),
            Key::Range(low, high) if low.is_finite() && high.is_finite() => {
                let (size, cells) = touched(*low, *high);
                let at = self.spans.iter().position(|(held, _)| *held == size);
                let at = at.unwrap_or_else(|| {
                    self.spans.push((size, FxHashMap::default()));
                    self.spans.len() - 1
                });
                for cell in cells {
                    self.spans[at].1.entry(cell).or_default().push((*low, *high, id));
                }
            }
            Key::Range(low, high) if low.is_finite() => insert(&mut self.above, *low, id),
            Key::Range(_, high) if high.is_finite() => insert(&mut self.below, *high, id),
            Key::Range(..) | Key::There | Key::AnyOf(_) => self.there.push(id),
        }
    }

    pub fn remove(&mut self, key: &Key, id: Id) {
        match key {
            Key::Scalar(Scalar::Text(text)) => take(&mut self.texts, text, id),
            Key::Scalar(scalar) => {
                if let Some(bucket) = self.scalars.get_mut(scalar) {
                    bucket.retain(|one| *one != id);
                    if bucket.is_empty() {
                        self.scalars.remove(scalar);
                    }
                }
            }
            Key::Prefix(text) => take(&mut self.prefixes, text, id),
            Key::Suffix(text) => take(&mut self.suffixes, text, id),
            Key::Part(text) => take(&mut self.parts, text, id),
            Key::Range(low, high) if low.is_finite() && high.is_finite() => {
                let (size, touched) = touched(*low, *high);
                for (_, cells) in self.spans.iter_mut().filter(|(held, _)| *held == size) {
                    for cell in &touched {
                        if let Some(rows) = cells.get_mut(cell) {
                            rows.retain(|(_, _, one)| *one != id);
                            if rows.is_empty() {
                                cells.remove(cell);
                            }
                        }
                    }
                }
            }
            Key::Range(low, _) if low.is_finite() => self.above.retain(|(_, one)| *one != id),
            Key::Range(_, high) if high.is_finite() => self.below.retain(|(_, one)| *one != id),
            Key::Range(..) | Key::There | Key::AnyOf(_) => self.there.retain(|one| *one != id),
        }
    }

    fn text(&mut self, kind: usize, text: &[u8], id: Id) {
        let lengths = &mut self.lengths[kind];
        if let Err(at) = lengths.binary_search(&text.len()) {
            lengths.insert(at, text.len());
        }
        let buckets = [&mut self.prefixes, &mut self.suffixes, &mut self.parts];
        let [prefixes, suffixes, parts] = buckets;
        put([prefixes, suffixes, parts].into_iter().nth(kind).unwrap(), text, id);
    }
}

fn add<K: std::hash::Hash + Eq + std::borrow::Borrow<Q>, Q: std::hash::Hash + Eq + ?Sized>(
    buckets: &Buckets<K>,
    key: &Q,
    found: &mut Vec<Id>,
) {
    if buckets.is_empty() {
        return;
    }
    if let Some(bucket) = buckets.get(key) {
        found.extend_from_slice(bucket);
    }
}

fn count(buckets: &Buckets<Box<[u8]>>, text: &[u8]) -> usize {
    buckets.get(text).map_or(0, Vec::len)
}

fn put(buckets: &mut Buckets<Box<[u8]>>, text: &[u8], id: Id) {
    buckets.entry(text.into()).or_default().push(id);
}

fn take(buckets: &mut Buckets<Box<[u8]>>, text: &[u8], id: Id) {
    if let Some(bucket) = buckets.get_mut(text) {
        bucket.retain(|one| *one != id);
        if bucket.is_empty() {
            buckets.remove(text);
        }
    }
}

fn insert(rows: &mut Vec<(f64, Id)>, end: f64, id: Id) {
    let at = rows.partition_point(|(held, _)| *held <= end);
    rows.insert(at, (end, id));
}

/// Cells so large that a range touches two at the most: their size, and which.
fn touched(low: f64, high: f64) -> (u32, Vec<i64>) {
    let (first, last) = (ordered(low), ordered(high));
    let size = 64 - (last.wrapping_sub(first) as u64).leading_zeros();
    let size = size.min(63);
    let mut cells = vec![first >> size, last >> size];
    cells.dedup();
    (size, cells)
}

/// A double's place in the order of all doubles (IEEE 754 §5.10).
fn ordered(value: f64) -> i64 {
    let bits = (value + 0.0).to_bits() as i64;
    if bits >= 0 {
        bits
    } else {
        (bits & i64::MAX).wrapping_neg()
    }
}
