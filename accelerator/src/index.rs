//! Rules, found by the values they ask for, and then matched in full where that does not say all.

use crate::bucket::{Entry, Id, Sure};
use crate::json::{parse, Value};
use crate::places::{Key, Place, Scalar};
use crate::rule::Condition;
use crate::shape::{Held, Shape};
use crate::tree::{Node, Tree, DATA};

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
    /// The keys, where all of them are scalars.
    fn scalars(&self) -> Option<Vec<Scalar>> {
        let scalar = |key: &Key| match key {
            Key::Scalar(scalar) => Some(scalar.clone()),
            _ => None,
        };
        self.keys.iter().map(scalar).collect()
    }

    fn scalar(&self) -> bool {
        self.keys.iter().all(|key| matches!(key, Key::Scalar(_)))
    }
}

/// Groups of which each must be there for a rule to match, as a whole or of an event without
/// arrays.
pub struct Way {
    pub groups: Vec<Group>,
    pub full: bool,
    pub flat: bool,
}

enum Filed {
    Alone(Entry, Group),
    Together(Entry, usize, Vec<Vec<Scalar>>),
    Rest(Entry),
}

/// When a rule matches.
pub struct Rule {
    pub condition: Condition,
    /// That is not all that its filter says.
    pub doubtful: bool,
    /// It looks at data.
    pub looks: bool,
}

pub struct Index<K> {
    pub tree: Tree,
    places: Vec<Place>,
    shapes: Vec<Shape>,
    rest: Vec<Entry>,
    /// By rule, each apart: most that are found need no more than the key.
    keys: Vec<Option<K>>,
    rules: Vec<Option<Rule>>,
    filed: Vec<Box<[Filed]>>,
    free: Vec<Id>,
    /// How many ways are found by data.
    in_data: usize,
}

impl<K> Index<K> {
    pub fn new() -> Self {
        Index {
            tree: Tree::new(),
            places: Vec::new(),
            shapes: Vec::new(),
            rest: Vec::new(),
            keys: Vec::new(),
            rules: Vec::new(),
            filed: Vec::new(),
            free: Vec::new(),
            in_data: 0,
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
    pub fn add(&mut self, key: K, rule: Rule, ways: Vec<Way>) -> Id {
        let id = self.free.pop().unwrap_or_else(|| {
            self.keys.push(None);
            self.rules.push(None);
            self.filed.push(Box::default());
            (self.rules.len() - 1) as Id
        });
        let filed: Box<[Filed]> = ways.into_iter().map(|way| self.file(id, way)).collect();
        self.in_data += filed.iter().filter(|one| self.by_data(one)).count();
        self.keys[id as usize] = Some(key);
        self.rules[id as usize] = Some(rule);
        self.filed[id as usize] = filed;
        id
    }

    /// Take a rule out; its key.
    pub fn remove(&mut self, id: Id) -> Option<K> {
        let key = self.keys.get_mut(id as usize)?.take()?;
        self.rules[id as usize] = None;
        for filed in std::mem::take(&mut self.filed[id as usize]) {
            self.in_data -= usize::from(self.by_data(&filed));
            match filed {
                Filed::Rest(entry) => self.rest.retain(|one| *one != entry),
                Filed::Alone(entry, group) => {
                    for key in &group.keys {
                        self.place(group.node).remove(key, entry);
                    }
                }
                Filed::Together(entry, shape, values) => {
                    self.shapes[shape].take(&values, entry);
                    self.share(shape, &values, |held, scalar| {
                        if let Some(count) = held.get_mut(scalar) {
                            *count -= 1;
                            if *count == 0 {
                                held.remove(scalar);
                            }
                        }
                    });
                }
            }
        }
        self.free.push(id);
        Some(key)
    }

    fn by_data(&self, filed: &Filed) -> bool {
        match filed {
            Filed::Alone(_, group) => self.tree.in_data(group.node),
            Filed::Together(_, shape, _) => self.shapes[*shape].in_data,
            Filed::Rest(_) => false,
        }
    }

    fn file(&mut self, id: Id, mut way: Way) -> Filed {
        let chosen = self.choose(&mut way.groups);
        let all = chosen.len() == way.groups.len();
        let sure = match all {
            true if way.full => Sure::Full,
            true if way.flat => Sure::Flat,
            _ => Sure::Not,
        };
        let entry = Entry::new(id, sure);
        if chosen.is_empty() {
            self.rest.push(entry);
            return Filed::Rest(entry);
        }
        if chosen.len() > 1 {
            let shape = self.shape(&way.groups, &chosen);
            let mut by: Vec<&Group> = chosen.iter().map(|at| &way.groups[*at]).collect();
            by.sort_by_key(|group| group.node);
            let values: Vec<Vec<Scalar>> = by.into_iter().filter_map(Group::scalars).collect();
            self.shapes[shape].put(&values, entry);
            self.share(shape, &values, |held, one| *held.entry(one.clone()).or_default() += 1);
            return Filed::Together(entry, shape, values);
        }
        let group = way.groups.swap_remove(chosen[0]);
        for key in &group.keys {
            self.place(group.node).add(key, entry);
        }
        Filed::Alone(entry, group)
    }

    /// Count the values of a rule that is found by several.
    fn share(
        &mut self,
        shape: usize,
        values: &[Vec<Scalar>],
        count: impl Fn(&mut rustc_hash::FxHashMap<Scalar, usize>, &Scalar),
    ) {
        for (at, some) in values.iter().enumerate() {
            let node = self.shapes[shape].nodes[at];
            let held = &mut self.place(node).shared;
            some.iter().for_each(|scalar| count(held, scalar));
        }
    }

    /// By which groups a rule is best found: by one, by several together, or by none. Where any key
    /// of several would do, the best is put in their place.
    pub fn choose(&mut self, groups: &mut [Group]) -> Vec<usize> {
        let mut costs = Vec::with_capacity(groups.len());
        for group in groups.iter_mut() {
            let place = self.place(group.node);
            for key in &mut group.keys {
                if let Key::AnyOf(options) = key {
                    let best = options.drain(..).min_by_key(|one| place.cost(one));
                    *key = best.unwrap_or(Key::There);
                }
            }
            let sum: usize = group.keys.iter().map(|key| place.cost(key)).sum();
            costs.push(sum / group.keys.len().max(1));
        }
        // Of two that are about the same, that of an attribute: it is found without the data.
        let cost = |at: &usize| costs[*at] + usize::from(self.tree.in_data(groups[*at].node));
        let Some(best) = (0..groups.len()).min_by_key(cost) else { return Vec::new() };
        if costs[best] >= CROWDED && groups.len() > 1 {
            if let Some(chosen) = self.together(groups, &costs) {
                return chosen;
            }
        }
        vec![best]
    }

    /// Groups of scalars to file a rule under together, those with the fewest rules first.
    fn together(&self, groups: &[Group], costs: &[usize]) -> Option<Vec<usize>> {
        let mut order: Vec<usize> = (0..groups.len()).collect();
        order.sort_by_key(|at| costs[*at]);
        let mut chosen: Vec<usize> = Vec::new();
        let mut product = 1;
        for at in order {
            let count = groups[at].keys.len();
            let taken = chosen.iter().any(|one| groups[*one].node == groups[at].node);
            if !taken && product * count <= MAX_VALUES && groups[at].scalar() {
                product *= count;
                chosen.push(at);
            }
        }
        let known = || self.shapes.iter().any(|one| one.nodes == nodes(groups, &chosen));
        (chosen.len() > 1 && (self.shapes.len() < MAX_SHAPES || known())).then_some(chosen)
    }

    /// The shape of these groups, made where it is new.
    fn shape(&mut self, groups: &[Group], chosen: &[usize]) -> usize {
        let nodes = nodes(groups, chosen);
        if let Some(at) = self.shapes.iter().position(|one| one.nodes == nodes) {
            return at;
        }
        for node in &nodes {
            self.place(*node).shaped = true;
        }
        let in_data = nodes.iter().any(|node| self.tree.in_data(*node));
        self.shapes.push(Shape::new(nodes, in_data));
        self.shapes.len() - 1
    }

    /// The keys of the rules that an event matches, and of those whose filters must be asked, too:
    /// its attributes by their nodes, and its data, which need be no JSON.
    pub fn matches<'a>(
        &self,
        mut event: Vec<(Node, Value<'a>)>,
        body: Option<&'a [u8]>,
        depth: usize,
    ) -> (Vec<&K>, Vec<&K>) {
        let mut found = self.rest.clone();
        let mut held = Held::default();
        for (node, value) in &event {
            self.look(*node, value, &mut found, &mut held);
        }
        self.look_together(false, &held, &mut found);
        let mut flat = true;
        if self.in_data > 0 || found.iter().any(|one| self.looks(*one)) {
            if let Some(data) = body.and_then(|body| parse(body, &self.tree, depth)) {
                flat = self.walk(DATA, &data, &mut found, &mut held);
                event.push((DATA, data));
            }
            self.look_together(true, &held, &mut found);
        }
        if found.len() > 1 {
            found.sort_unstable();
            found.dedup_by_key(|one| one.id());
        }
        let (mut sure, mut doubtful) = (Vec::with_capacity(found.len()), Vec::new());
        for entry in found {
            let id = entry.id() as usize;
            let Some(key) = &self.keys[id] else { continue };
            if entry.sure(flat) {
                sure.push(key);
            } else if let Some(rule) = &self.rules[id] {
                if rule.condition.holds(&event) {
                    (if rule.doubtful { &mut doubtful } else { &mut sure }).push(key);
                }
            }
        }
        (sure, doubtful)
    }

    /// Whether the data says if the rule of an entry matches.
    fn looks(&self, entry: Entry) -> bool {
        let rule = &self.rules[entry.id() as usize];
        !entry.sure(false) && rule.as_ref().is_some_and(|rule| rule.looks)
    }

    fn look(&self, node: Node, leaf: &Value, found: &mut Vec<Entry>, held: &mut Held) {
        if let Some(place) = self.places.get(node as usize) {
            place.find(leaf, found);
            if place.shaped {
                held.push(node, leaf);
            }
        }
    }

    fn look_together(&self, in_data: bool, held: &Held, found: &mut Vec<Entry>) {
        for shape in self.shapes.iter().filter(|shape| shape.in_data == in_data) {
            shape.find(held, found);
        }
    }

    /// Look at a value of the data, and at those in it; whether there was no array.
    fn walk(&self, node: Node, value: &Value, found: &mut Vec<Entry>, held: &mut Held) -> bool {
        match value {
            Value::Object(fields) => {
                let mut flat = true;
                for (below, inner) in fields {
                    flat &= self.walk(*below, inner, found, held);
                }
                flat
            }
            Value::List(items) => {
                items.iter().for_each(|item| {
                    self.walk(node, item, found, held);
                });
                false
            }
            leaf => {
                self.look(node, leaf, found, held);
                true
            }
        }
    }
}

/// The names of groups, in their order.
fn nodes(groups: &[Group], chosen: &[usize]) -> Vec<Node> {
    let mut nodes: Vec<Node> = chosen.iter().map(|at| groups[*at].node).collect();
    nodes.sort_unstable();
    nodes
}
