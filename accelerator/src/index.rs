//! Rules, found by the values they ask for and then matched in full.

use crate::json::{parse, Value};
use crate::places::{hashed, Id, Key, Place, Scalar};
use crate::rule::Table;
use crate::tree::{Node, Tree};
use rustc_hash::{FxHashMap, FxHashSet};

/// Rules in one bucket from which on several names are looked at together.
const CROWDED: usize = 2;
const MAX_SHAPES: usize = 32;
const MAX_VALUES: usize = 16;

/// A name and what it may have, of which any finds the rule.
pub struct Group {
    pub node: Node,
    pub keys: Vec<Key>,
}

impl Group {
    /// The keys that are scalars.
    fn scalars(&self) -> Vec<Scalar> {
        let scalar = |key: &Key| match key {
            Key::Scalar(scalar) => Some(scalar.clone()),
            _ => None,
        };
        self.keys.iter().filter_map(scalar).collect()
    }
}

enum Filed {
    Alone(Group),
    Together(Vec<Node>, Vec<Vec<Scalar>>),
    Rest,
}

/// What is found, and in which ways it matches.
pub struct Rule<K> {
    pub key: K,
    pub alternatives: Vec<Table>,
}

struct Held<K> {
    rule: Option<Rule<K>>,
    filed: Vec<Filed>,
    /// The last event it was looked at with.
    seen: u64,
}

pub struct Index<K> {
    pub tree: Tree,
    places: Vec<Place>,
    /// Names that are looked at together, and rules by the hash of what they ask for there.
    shapes: Vec<(Vec<Node>, FxHashMap<u64, Vec<Id>>)>,
    /// The names of all shapes.
    shaped: FxHashSet<Node>,
    rest: Vec<Id>,
    rules: Vec<Held<K>>,
    free: Vec<Id>,
    event: u64,
}

impl<K> Index<K> {
    pub fn new() -> Self {
        Index {
            tree: Tree::new(),
            places: Vec::new(),
            shapes: Vec::new(),
            shaped: FxHashSet::default(),
            rest: Vec::new(),
            rules: Vec::new(),
            free: Vec::new(),
            event: 0,
        }
    }

    fn place(&mut self, node: Node) -> &mut Place {
        let at = node as usize;
        if self.places.len() <= at {
            self.places.resize_with(at + 1, Place::default);
        }
        &mut self.places[at]
    }

    /// Add a rule that can match in each of these ways; its number.
    pub fn add(&mut self, rule: Rule<K>, ways: Vec<Vec<Group>>) -> Id {
        let id = self.free.pop().unwrap_or_else(|| {
            self.rules.push(Held { rule: None, filed: Vec::new(), seen: 0 });
            (self.rules.len() - 1) as Id
        });
        let filed = ways.into_iter().map(|way| self.file(id, way)).collect();
        self.rules[id as usize] = Held { rule: Some(rule), filed, seen: 0 };
        id
    }

    pub fn remove(&mut self, id: Id) {
        let Some(held) = self.rules.get_mut(id as usize) else { return };
        if held.rule.take().is_none() {
            return;
        }
        for filed in std::mem::take(&mut held.filed) {
            match filed {
                Filed::Rest => self.rest.retain(|one| *one != id),
                Filed::Alone(group) => {
                    for key in &group.keys {
                        self.place(group.node).remove(key, id);
                    }
                }
                Filed::Together(nodes, values) => self.take_together(id, &nodes, &values),
            }
        }
        self.free.push(id);
    }

    fn file(&mut self, id: Id, mut way: Vec<Group>) -> Filed {
        let chosen = self.choose(&mut way);
        if chosen.is_empty() {
            self.rest.push(id);
            return Filed::Rest;
        }
        if chosen.len() > 1 {
            let mut by: Vec<&Group> = chosen.iter().map(|at| &way[*at]).collect();
            by.sort_by_key(|group| group.node);
            let nodes: Vec<Node> = by.iter().map(|group| group.node).collect();
            let values: Vec<Vec<Scalar>> = by.iter().map(|group| group.scalars()).collect();
            self.file_together(id, &nodes, &values);
            return Filed::Together(nodes, values);
        }
        let group = way.swap_remove(chosen[0]);
        for key in &group.keys {
            self.place(group.node).add(key, id);
        }
        Filed::Alone(group)
    }

    /// By which groups of a way its rule is best found: by one, by several together, or by none.
    /// Where any key of several would do, the best is put in their place.
    pub fn choose(&mut self, way: &mut [Group]) -> Vec<usize> {
        let mut costs = Vec::with_capacity(way.len());
        for group in way.iter_mut() {
            let place = self.place(group.node);
            for key in &mut group.keys {
                if let Key::AnyOf(options) = key {
                    *key = options.drain(..).min_by_key(|one| place.cost(one)).unwrap_or(Key::There);
                }
            }
            let sum: usize = group.keys.iter().map(|key| place.cost(key)).sum();
            costs.push(sum / group.keys.len().max(1));
        }
        let Some(best) = (0..way.len()).min_by_key(|at| costs[*at]) else { return Vec::new() };
        if costs[best] >= CROWDED {
            if let Some(chosen) = self.together(way, &costs) {
                return chosen;
            }
        }
        vec![best]
    }

    /// Names of scalars to file a way under together, those with the fewest rules first.
    fn together(&self, way: &[Group], costs: &[usize]) -> Option<Vec<usize>> {
        let mut order: Vec<usize> = (0..way.len()).collect();
        order.sort_by_key(|at| costs[*at]);
        let mut chosen: Vec<usize> = Vec::new();
        let mut product = 1;
        for at in order {
            let count = way[at].keys.len();
            let taken = chosen.iter().any(|one| way[*one].node == way[at].node);
            if !taken && way[at].scalars().len() == count && product * count <= MAX_VALUES {
                product *= count;
                chosen.push(at);
            }
        }
        let mut nodes: Vec<Node> = chosen.iter().map(|at| way[*at].node).collect();
        nodes.sort_unstable();
        let known = self.shapes.iter().any(|(held, _)| *held == nodes);
        (chosen.len() > 1 && (known || self.shapes.len() < MAX_SHAPES)).then_some(chosen)
    }

    fn file_together(&mut self, id: Id, nodes: &[Node], values: &[Vec<Scalar>]) {
        let at = self.shapes.iter().position(|(held, _)| held == nodes);
        let at = at.unwrap_or_else(|| {
            self.shaped.extend(nodes);
            self.shapes.push((nodes.to_vec(), FxHashMap::default()));
            self.shapes.len() - 1
        });
        for key in product(&hashes(values)) {
            self.shapes[at].1.entry(key).or_default().push(id);
        }
        for (node, some) in nodes.iter().zip(values) {
            for scalar in some {
                *self.place(*node).shared.entry(scalar.clone()).or_default() += 1;
            }
        }
    }

    fn take_together(&mut self, id: Id, nodes: &[Node], values: &[Vec<Scalar>]) {
        if let Some((_, buckets)) = self.shapes.iter_mut().find(|(held, _)| held == nodes) {
            for key in product(&hashes(values)) {
                if let Some(bucket) = buckets.get_mut(&key) {
                    bucket.retain(|one| *one != id);
                    if bucket.is_empty() {
                        buckets.remove(&key);
                    }
                }
            }
        }
        for (node, some) in nodes.iter().zip(values) {
            for scalar in some {
                let shared = &mut self.place(*node).shared;
                if let Some(count) = shared.get_mut(scalar) {
                    *count -= 1;
                    if *count == 0 {
                        shared.remove(scalar);
                    }
                }
            }
        }
    }

    /// The rules that an event's data matches; none where it is no JSON.
    pub fn matches(&mut self, body: &[u8], depth: usize) -> Vec<&K> {
        let Some(data) = parse(body, &self.tree, depth) else { return Vec::new() };
        let mut found = self.rest.clone();
        let mut held: Vec<(Node, u64)> = Vec::new();
        self.walk(self.tree.root(), &data, &mut found, &mut held);
        for (nodes, buckets) in &self.shapes {
            find_together(nodes, buckets, &held, &mut found);
        }
        self.event += 1;
        let top = [(self.tree.root(), data)];
        found.retain(|id| {
            let held = &mut self.rules[*id as usize];
            if std::mem::replace(&mut held.seen, self.event) == self.event {
                return false;
            }
            let rule = held.rule.as_ref();
            rule.is_some_and(|rule| rule.alternatives.iter().any(|one| one.holds(&top)))
        });
        let rules = &self.rules;
        found.iter().filter_map(|id| rules[*id as usize].rule.as_ref()).map(|one| &one.key).collect()
    }

    fn walk(&self, node: Node, value: &Value, found: &mut Vec<Id>, held: &mut Vec<(Node, u64)>) {
        match value {
            Value::Object(fields) => {
                for (below, inner) in fields {
                    self.walk(*below, inner, found, held);
                }
            }
            Value::List(items) => {
                for item in items {
                    self.walk(node, item, found, held);
                }
            }
            leaf => {
                if let Some(place) = self.places.get(node as usize) {
                    place.find(leaf, found);
                }
                if self.shaped.contains(&node) {
                    held.push((node, hashed(leaf)));
                }
            }
        }
    }
}

fn find_together(
    nodes: &[Node],
    buckets: &FxHashMap<u64, Vec<Id>>,
    held: &[(Node, u64)],
    found: &mut Vec<Id>,
) {
    let of = |node: Node| held.iter().filter(move |(at, _)| *at == node).map(|(_, hash)| *hash);
    let mut combinations = 1usize;
    for node in nodes {
        combinations = combinations.saturating_mul(of(*node).count());
    }
    if combinations == 1 {
        let key = nodes.iter().filter_map(|node| of(*node).next()).fold(0, both);
        found.extend(buckets.get(&key).into_iter().flatten());
    } else if combinations <= buckets.len() {
        let values: Vec<Vec<u64>> = nodes.iter().map(|node| of(*node).collect()).collect();
        for key in product(&values) {
            found.extend(buckets.get(&key).into_iter().flatten());
        }
    } else {
        found.extend(buckets.values().flatten()); // fewer than to look up
    }
}

fn both(first: u64, second: u64) -> u64 {
    (first.rotate_left(5) ^ second).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn hashes(values: &[Vec<Scalar>]) -> Vec<Vec<u64>> {
    values.iter().map(|some| some.iter().map(Scalar::hashed).collect()).collect()
}

/// The hash of each combination of one value of each.
fn product(values: &[Vec<u64>]) -> Vec<u64> {
    values.iter().fold(vec![0], |begun, some| {
        begun.iter().flat_map(|first| some.iter().map(|second| both(*first, *second))).collect()
    })
}
