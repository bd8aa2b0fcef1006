//! The names that rules ask for, as a tree: what of an event need be looked at.

use rustc_hash::FxHashMap;

/// A name below those above it.
pub type Node = u32;

/// An event's attributes as they are, and its data, by name.
pub const EVENT: Node = 0;
/// Its data.
pub const DATA: Node = 1;
/// The canonical texts of its extensions, by name.
pub const TEXTS: Node = 2;

struct Level {
    below: FxHashMap<Box<[u8]>, Node>,
    /// It is that of the data, or below it.
    in_data: bool,
}

pub struct Tree {
    levels: Vec<Level>,
}

impl Tree {
    pub fn new() -> Self {
        let level = |in_data| Level { below: FxHashMap::default(), in_data };
        let mut levels = vec![level(false), level(true), level(false)];
        levels[EVENT as usize].below.insert((*b"data").into(), DATA);
        Tree { levels }
    }

    pub fn below(&self, node: Node, name: &[u8]) -> Option<Node> {
        self.levels[node as usize].below.get(name).copied()
    }

    pub fn in_data(&self, node: Node) -> bool {
        self.levels[node as usize].in_data
    }

    /// That of a name, made where it is new. None is ever taken out: there are as many as rules
    /// have asked for, and few rules have names of their own.
    pub fn reach(&mut self, node: Node, name: &[u8]) -> Node {
        if let Some(found) = self.below(node, name) {
            return found;
        }
        let made = self.levels.len() as Node;
        let in_data = self.in_data(node);
        self.levels.push(Level { below: FxHashMap::default(), in_data });
        self.levels[node as usize].below.insert(name.into(), made);
        made
    }
}
