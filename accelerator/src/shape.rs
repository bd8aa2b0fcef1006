//! Rules that are found by the values of several names together.

use crate::bucket::{Buckets, Bytes, Entry};
use crate::json::Value;
use crate::places::{write, Scalar};
use crate::tree::Node;
use std::ops::Range;

/// What an event has at the names of shapes, as it stands in their keys.
#[derive(Default)]
pub struct Held {
    values: Vec<(Node, Range<usize>)>,
    written: Vec<u8>,
}

impl Held {
    pub fn push(&mut self, node: Node, leaf: &Value) {
        let start = self.written.len();
        write(leaf, &mut self.written);
        self.values.push((node, start..self.written.len()));
    }

    fn of(&self, node: Node) -> impl Iterator<Item = &[u8]> {
        let of = self.values.iter().filter(move |(held, _)| *held == node);
        of.map(|(_, range)| &self.written[range.clone()])
    }
}

/// Names, and rules by what they ask for there: the values of all of them, one after the other.
pub struct Shape {
    /// In their order.
    pub nodes: Vec<Node>,
    /// One of them is in the data.
    pub in_data: bool,
    buckets: Buckets<Bytes>,
}

impl Shape {
    pub fn new(nodes: Vec<Node>, in_data: bool) -> Self {
        Shape { nodes, in_data, buckets: Buckets::default() }
    }

    /// File a rule under each combination of the values of each name.
    pub fn put(&mut self, values: &[Vec<Scalar>], entry: Entry) {
        for key in written(values) {
            self.buckets.put(key[..].into(), entry);
        }
    }

    pub fn take(&mut self, values: &[Vec<Scalar>], entry: Entry) {
        for key in written(values) {
            self.buckets.take(&key[..], entry);
        }
    }

    pub fn find(&self, held: &Held, found: &mut Vec<Entry>) {
        let mut combinations = 1usize;
        for node in &self.nodes {
            combinations = combinations.saturating_mul(held.of(*node).count());
        }
        if combinations == 1 {
            let mut key = Vec::with_capacity(held.written.len());
            let all = self.nodes.iter().flat_map(|node| held.of(*node));
            all.for_each(|value| key.extend_from_slice(value));
            found.extend_from_slice(self.buckets.get(&key[..]));
        } else if combinations <= self.buckets.len() {
            let values = self.nodes.iter().map(|node| held.of(*node).collect());
            for key in product(&values.collect::<Vec<Vec<&[u8]>>>()) {
                found.extend_from_slice(self.buckets.get(&key[..]));
            }
        } else {
            found.extend(self.buckets.all().map(Entry::unsure)); // fewer than to look up
        }
    }
}

fn written(values: &[Vec<Scalar>]) -> Vec<Vec<u8>> {
    let each = |scalar: &Scalar| {
        let mut out = Vec::new();
        scalar.write(&mut out);
        out
    };
    let values = values.iter().map(|some| some.iter().map(each).collect());
    product(&values.collect::<Vec<Vec<Vec<u8>>>>())
}

/// One of each, one after the other, in every combination.
fn product<T: AsRef<[u8]>>(values: &[Vec<T>]) -> Vec<Vec<u8>> {
    values.iter().fold(vec![Vec::new()], |begun, some| {
        let each = |first: &Vec<u8>| -> Vec<Vec<u8>> {
            some.iter().map(|second| [first, second.as_ref()].concat()).collect()
        };
        begun.iter().flat_map(each).collect()
    })
}
