//! Which rules a value finds: small, so that few lines of memory are read to look one up.

use rustc_hash::FxHashMap;
use std::borrow::Borrow;
use std::hash::{Hash, Hasher};

/// A rule's number.
pub type Id = u32;

/// How sure it is that a rule matches that was found.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sure {
    /// What finds it says all.
    Full,
    /// It does, of an event without arrays.
    Flat,
    /// Its condition must be looked at.
    Not,
}

/// A rule's number with how sure it is. In their order a rule's surest comes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry(u32);

impl Entry {
    pub fn new(id: Id, sure: Sure) -> Self {
        Entry(id << 2 | sure as u32)
    }

    pub fn id(self) -> Id {
        self.0 >> 2
    }

    /// Whether it matches for certain, the event being without arrays, or not.
    pub fn sure(self, flat: bool) -> bool {
        self.0 & 3 <= u32::from(flat)
    }

    pub fn unsure(self) -> Self {
        Entry::new(self.id(), Sure::Not)
    }
}

/// Most have one rule.
pub enum Bucket {
    One(Entry),
    Many(Box<Vec<Entry>>),
}

impl Bucket {
    pub fn entries(&self) -> &[Entry] {
        match self {
            Bucket::One(entry) => std::slice::from_ref(entry),
            Bucket::Many(entries) => entries,
        }
    }

    fn push(&mut self, entry: Entry) {
        match self {
            Bucket::One(first) => *self = Bucket::Many(Box::new(vec![*first, entry])),
            Bucket::Many(entries) => entries.push(entry),
        }
    }

    /// Take an entry out; whether none is left.
    fn take(&mut self, entry: Entry) -> bool {
        match self {
            Bucket::One(held) => *held == entry,
            Bucket::Many(entries) => {
                entries.retain(|one| *one != entry);
                entries.is_empty()
            }
        }
    }
}

/// Bytes, up to 22 of them without a place of their own.
#[derive(Clone)]
pub enum Bytes {
    Here(u8, [u8; 22]),
    There(Box<[u8]>),
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        if bytes.len() > 22 {
            return Bytes::There(bytes.into());
        }
        let mut held = [0; 22];
        held[..bytes.len()].copy_from_slice(bytes);
        Bytes::Here(bytes.len() as u8, held)
    }
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Here(length, held) => &held[..*length as usize],
            Bytes::There(bytes) => bytes,
        }
    }
}

impl PartialEq for Bytes {
    fn eq(&self, other: &Self) -> bool {
        self[..] == other[..]
    }
}

impl Eq for Bytes {}

impl Hash for Bytes {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self[..].hash(state);
    }
}

impl Borrow<[u8]> for Bytes {
    fn borrow(&self) -> &[u8] {
        self
    }
}

/// Rules by what finds them.
pub struct Buckets<K>(FxHashMap<K, Bucket>);

impl<K> Default for Buckets<K> {
    fn default() -> Self {
        Buckets(FxHashMap::default())
    }
}

impl<K: Hash + Eq> Buckets<K> {
    pub fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> &[Entry]
    where
        K: Borrow<Q>,
    {
        if self.0.is_empty() {
            return &[];
        }
        self.0.get(key).map_or(&[], Bucket::entries)
    }

    pub fn put(&mut self, key: K, entry: Entry) {
        match self.0.entry(key) {
            std::collections::hash_map::Entry::Occupied(held) => held.into_mut().push(entry),
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(Bucket::One(entry));
            }
        }
    }

    pub fn take<Q: Hash + Eq + ?Sized>(&mut self, key: &Q, entry: Entry)
    where
        K: Borrow<Q>,
    {
        if self.0.get_mut(key).is_some_and(|bucket| bucket.take(entry)) {
            self.0.remove(key);
        }
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn all(&self) -> impl Iterator<Item = Entry> + '_ {
        self.0.values().flat_map(|bucket| bucket.entries().iter().copied())
    }
}
