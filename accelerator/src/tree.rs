//! The names that rules ask for, as a tree: what of an event's data need be looked at.

use rustc_hash::FxHashMap;

/// A name below those above it.
pub type Node = u32;

struct Level {
    below: FxHashMap<Box<[u8]>, Node>,
}

pub struct Tree {
    levels: Vec<Level>,
}

impl Tree {
    pub fn new() -> Self {
        Tree { levels: vec![Level { below: FxHashMap::default() }] }
    }

    /// That of the data itself.
    pub fn root(&self) -> Node {
        0
    }

    pub fn below(&self, node: Node, name: &[u8]) -> Option<Node> {
        self.levels[node as usize].below.get(name).copied()
    }

    /// That of a name, made where it is new. None is ever taken out: there are as many as rules
    /// have asked for, and few rules have names of their own.
    pub fn reach(&mut self, node: Node, name: &[u8]) -> Node {
        if let Some(found) = self.below(node, name) {
            return found;
        }
        let made = self.levels.len() as Node;
        self.levels.push(Level { below: FxHashMap::default() });
        self.levels[node as usize].below.insert(name.into(), made);
        made
    }
}
