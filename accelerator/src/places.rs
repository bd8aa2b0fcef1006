//! What is filed under the values of one name, as `triggers/field.py` files it.

use crate::bucket::{Buckets, Bytes, Entry};
use crate::json::Value;
use rustc_hash::FxHashMap;

/// A value, or kind of value, that a name may have.
#[derive(Clone)]
pub enum Key {
    Scalar(Scalar),
    Prefix(Bytes),
    Suffix(Bytes),
    /// A part of the text that a wildcard has.
    Part(Bytes),
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
    Text(Bytes),
}

impl Scalar {
    pub fn number(value: f64) -> Self {
        Scalar::Number((value + 0.0).to_bits())
    }

    /// Add what stands for it where values of several names stand together.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Scalar::Null => out.push(0),
            Scalar::Bool(value) => out.extend([1, u8::from(*value)]),
            Scalar::Number(bits) => write_number(*bits, out),
            Scalar::Text(text) => write_text(text, out),
        }
    }
}

/// The same of a leaf.
pub fn write(leaf: &Value, out: &mut Vec<u8>) {
    match leaf {
        Value::Text(text) => write_text(text, out),
        Value::Number(value) => write_number((value + 0.0).to_bits(), out),
        Value::Bool(value) => out.extend([1, u8::from(*value)]),
        _ => out.push(0),
    }
}

fn write_number(bits: u64, out: &mut Vec<u8>) {
    out.push(2);
    out.extend(bits.to_le_bytes());
}

/// No text begins as another does: its length comes first.
fn write_text(text: &[u8], out: &mut Vec<u8>) {
    match u8::try_from(text.len()) {
        Ok(length) => out.extend([3, length]),
        Err(_) => {
            out.push(4);
            out.extend((text.len() as u64).to_le_bytes());
        }
    }
    out.extend(text);
}

#[derive(Default)]
pub struct Place {
    texts: Buckets<Bytes>,
    scalars: Buckets<Scalar>,
    prefixes: Buckets<Bytes>,
    suffixes: Buckets<Bytes>,
    parts: Buckets<Bytes>,
    /// What lengths of those there are, the shortest first.
    lengths: [Vec<usize>; 3],
    /// By the size, and the number, of the cells of a line of all doubles that a range touches.
    spans: Vec<(u32, FxHashMap<i64, Vec<(f64, f64, Entry)>>)>,
    /// Ranges without an upper end, by their lower; and the other way round.
    above: Vec<(f64, Entry)>,
    below: Vec<(f64, Entry)>,
    there: Vec<Entry>,
    /// How many are found by a scalar here together with values of other names.
    pub shared: FxHashMap<Scalar, usize>,
    /// Some are, or have been.
    pub shaped: bool,
}

impl Place {
    pub fn find(&self, value: &Value, found: &mut Vec<Entry>) {
        found.extend_from_slice(&self.there);
        match value {
            Value::Text(text) => self.find_text(text, found),
            Value::Number(number) => {
                found.extend_from_slice(self.scalars.get(&Scalar::number(*number)));
                self.find_number(*number, found);
            }
            Value::Null => found.extend_from_slice(self.scalars.get(&Scalar::Null)),
            Value::Bool(value) => found.extend_from_slice(self.scalars.get(&Scalar::Bool(*value))),
            _ => {}
        }
    }

    fn find_text(&self, text: &[u8], found: &mut Vec<Entry>) {
        found.extend_from_slice(self.texts.get(text));
        for &length in self.lengths[0].iter().take_while(|length| **length <= text.len()) {
            found.extend_from_slice(self.prefixes.get(&text[..length]));
        }
        for &length in self.lengths[1].iter().take_while(|length| **length <= text.len()) {
            found.extend_from_slice(self.suffixes.get(&text[text.len() - length..]));
        }
        for &length in self.lengths[2].iter().take_while(|length| **length <= text.len()) {
            for part in text.windows(length) {
                found.extend_from_slice(self.parts.get(part));
            }
        }
    }

    fn find_number(&self, number: f64, found: &mut Vec<Entry>) {
        let at = ordered(number);
        for (size, cells) in &self.spans {
            for (low, high, entry) in cells.get(&(at >> size)).into_iter().flatten() {
                if *low <= number && number <= *high {
                    found.push(*entry);
                }
            }
        }
        let end = self.above.partition_point(|(low, _)| *low <= number);
        found.extend(self.above[..end].iter().map(|(_, entry)| *entry));
        let start = self.below.partition_point(|(high, _)| *high < number);
        found.extend(self.below[start..].iter().map(|(_, entry)| *entry));
    }

    /// About how many rules a value that this key finds is looked at for in vain.
    pub fn cost(&self, key: &Key) -> usize {
        match key {
            Key::Scalar(scalar) => {
                let held = match scalar {
                    Scalar::Text(text) => self.texts.get(&text[..]).len(),
                    other => self.scalars.get(other).len(),
                };
                held + self.shared.get(scalar).copied().unwrap_or(0)
            }
            Key::Prefix(text) => 2 + self.prefixes.get(&text[..]).len(),
            Key::Suffix(text) => 2 + self.suffixes.get(&text[..]).len(),
            Key::Part(text) => 4 + self.parts.get(&text[..]).len(),
            Key::Range(low, high) if low.is_finite() && high.is_finite() => 16,
            Key::Range(..) => 1_000,
            Key::There | Key::AnyOf(_) => 1_000_000,
        }
    }

    pub fn add(&mut self, key: &Key, entry: Entry) {
        match key {
            Key::Scalar(Scalar::Text(text)) => self.texts.put(text.clone(), entry),
            Key::Scalar(scalar) => self.scalars.put(scalar.clone(), entry),
            Key::Prefix(text) => {
                self.prefixes.put(text.clone(), entry);
                self.length(0, text.len());
            }
            Key::Suffix(text) => {
                self.suffixes.put(text.clone(), entry);
                self.length(1, text.len());
            }
            Key::Part(text) => {
                self.parts.put(text.clone(), entry);
                self.length(2, text.len());
            }
            Key::Range(low, high) if low.is_finite() && high.is_finite() => {
                let (size, cells) = touched(*low, *high);
                let at = self.spans.iter().position(|(held, _)| *held == size);
                let at = at.unwrap_or_else(|| {
                    self.spans.push((size, FxHashMap::default()));
                    self.spans.len() - 1
                });
                for cell in cells {
                    self.spans[at].1.entry(cell).or_default().push((*low, *high, entry));
                }
            }
            Key::Range(low, high) if low.is_finite() => insert(&mut self.above, *low, entry),
            Key::Range(_, high) if high.is_finite() => insert(&mut self.below, *high, entry),
            Key::Range(..) | Key::There | Key::AnyOf(_) => self.there.push(entry),
        }
    }

    pub fn remove(&mut self, key: &Key, entry: Entry) {
        match key {
            Key::Scalar(Scalar::Text(text)) => self.texts.take(&text[..], entry),
            Key::Scalar(scalar) => self.scalars.take(scalar, entry),
            Key::Prefix(text) => self.prefixes.take(&text[..], entry),
            Key::Suffix(text) => self.suffixes.take(&text[..], entry),
            Key::Part(text) => self.parts.take(&text[..], entry),
            Key::Range(low, high) if low.is_finite() && high.is_finite() => {
                let (size, touched) = touched(*low, *high);
                for (_, cells) in self.spans.iter_mut().filter(|(held, _)| *held == size) {
                    for cell in &touched {
                        if let Some(rows) = cells.get_mut(cell) {
                            rows.retain(|(_, _, one)| *one != entry);
                            if rows.is_empty() {
                                cells.remove(cell);
                            }
                        }
                    }
                }
            }
            Key::Range(low, _) if low.is_finite() => self.above.retain(|(_, one)| *one != entry),
            Key::Range(_, high) if high.is_finite() => self.below.retain(|(_, one)| *one != entry),
            Key::Range(..) | Key::There | Key::AnyOf(_) => self.there.retain(|one| *one != entry),
        }
    }

    fn length(&mut self, kind: usize, length: usize) {
        if let Err(at) = self.lengths[kind].binary_search(&length) {
            self.lengths[kind].insert(at, length);
        }
    }
}

fn insert(rows: &mut Vec<(f64, Entry)>, end: f64, entry: Entry) {
    let at = rows.partition_point(|(held, _)| *held <= end);
    rows.insert(at, (end, entry));
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
