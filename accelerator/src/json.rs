//! JSON (RFC 8259) as far as rules look into it: names that none asks for are checked and skipped.

use crate::tree::{Node, Tree, DATA};
use std::borrow::Cow;

/// A value. Strings are bytes: UTF-8, in which a lone surrogate of an escape takes three, too.
pub enum Value<'a> {
    Null,
    Bool(bool),
    Number(f64),
    Text(Cow<'a, [u8]>),
    List(Vec<Value<'a>>),
    /// The fields that are asked for, by their node; each is there once.
    Object(Vec<(Node, Value<'a>)>),
}

/// Data as a value, as far as it is asked for; None where it is no JSON, or nested more than
/// `depth` deep.
pub fn parse<'a>(body: &'a [u8], tree: &Tree, depth: usize) -> Option<Value<'a>> {
    std::str::from_utf8(body).ok()?;
    let mut parser = Parser { body, at: 0, left: depth, tree };
    let value = parser.value(DATA)?;
    parser.space();
    (parser.at == body.len()).then_some(value)
}

struct Parser<'a, 't> {
    body: &'a [u8],
    at: usize,
    left: usize,
    tree: &'t Tree,
}

impl<'a> Parser<'a, '_> {
    fn peek(&self) -> Option<u8> {
        self.body.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn take(&mut self, wanted: &[u8]) -> Option<()> {
        self.body[self.at..].starts_with(wanted).then(|| self.at += wanted.len())
    }

    fn value(&mut self, node: Node) -> Option<Value<'a>> {
        self.space();
        Some(match self.peek()? {
            b'"' => Value::Text(self.string()?),
            b'{' => Value::Object(self.object(node)?),
            b'[' => Value::List(self.list(node)?),
            b't' => self.take(b"true").map(|()| Value::Bool(true))?,
            b'f' => self.take(b"false").map(|()| Value::Bool(false))?,
            b'n' => self.take(b"null").map(|()| Value::Null)?,
            _ => Value::Number(self.number()?),
        })
    }

    /// Check a value that nobody asks for.
    fn skip(&mut self) -> Option<()> {
        self.space();
        match self.peek()? {
            b'"' => self.span().map(|_| ()),
            b'{' => self.members(|parser, _| parser.skip()),
            b'[' => self.items(|parser| parser.skip()),
            b't' => self.take(b"true"),
            b'f' => self.take(b"false"),
            b'n' => self.take(b"null"),
            _ => self.digits().map(|_| ()),
        }
    }

    fn object(&mut self, node: Node) -> Option<Vec<(Node, Value<'a>)>> {
        let mut fields: Vec<(Node, Value<'a>)> = Vec::new();
        self.members(|parser, name| {
            let Some(below) = parser.tree.below(node, &name) else { return parser.skip() };
            let value = parser.value(below)?;
            match fields.iter_mut().find(|(held, _)| *held == below) {
                Some(field) => field.1 = value, // of two fields of one name the last counts
                None => fields.push((below, value)),
            }
            Some(())
        })?;
        Some(fields)
    }

    fn list(&mut self, node: Node) -> Option<Vec<Value<'a>>> {
        let mut items = Vec::new();
        self.items(|parser| parser.value(node).map(|value| items.push(value)))?;
        Some(items)
    }

    fn members(
        &mut self,
        mut each: impl FnMut(&mut Self, Cow<'a, [u8]>) -> Option<()>,
    ) -> Option<()> {
        self.enter()?;
        self.space();
        if self.peek()? != b'}' {
            loop {
                self.space();
                (self.peek()? == b'"').then_some(())?;
                let name = self.string()?;
                self.space();
                self.take(b":")?;
                each(self, name)?;
                if !self.more(b'}')? {
                    break;
                }
            }
        }
        self.leave()
    }

    fn items(&mut self, mut each: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.enter()?;
        self.space();
        if self.peek()? != b']' {
            loop {
                each(self)?;
                if !self.more(b']')? {
                    break;
                }
            }
        }
        self.leave()
    }

    fn enter(&mut self) -> Option<()> {
        self.left = self.left.checked_sub(1)?;
        self.at += 1;
        Some(())
    }

    fn leave(&mut self) -> Option<()> {
        self.left += 1;
        self.at += 1;
        Some(())
    }

    /// Whether a comma comes, and not the end, which is left there.
    fn more(&mut self, end: u8) -> Option<bool> {
        self.space();
        let found = self.peek()?;
        if found == b',' {
            self.at += 1;
            return Some(true);
        }
        (found == end).then_some(false)
    }

    /// A string's bytes between its quotes, as they stand; whether there is an escape among them.
    fn span(&mut self) -> Option<(&'a [u8], bool)> {
        self.at += 1;
        let (start, mut escaped) = (self.at, false);
        loop {
            match self.peek()? {
                b'"' => break,
                b'\\' => {
                    escaped = true;
                    self.at += 1;
                    match self.peek()? {
                        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 1,
                        b'u' => {
                            let digits = self.body.get(self.at + 1..self.at + 5)?;
                            digits.iter().all(u8::is_ascii_hexdigit).then_some(())?;
                            self.at += 5;
                        }
                        _ => return None,
                    }
                }
                0..=0x1f => return None,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        Some((&self.body[start..self.at - 1], escaped))
    }

    fn string(&mut self) -> Option<Cow<'a, [u8]>> {
        let (raw, escaped) = self.span()?;
        Some(if escaped { Cow::Owned(unescaped(raw)) } else { Cow::Borrowed(raw) })
    }

    fn digits(&mut self) -> Option<&'a [u8]> {
        let start = self.at;
        let _ = self.take(b"-");
        match self.peek()? {
            b'0' => self.at += 1,
            b'1'..=b'9' => self.run()?,
            _ => return None,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.run()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.run()?;
        }
        Some(&self.body[start..self.at])
    }

    fn run(&mut self) -> Option<()> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }

    fn number(&mut self) -> Option<f64> {
        std::str::from_utf8(self.digits()?).ok()?.parse().ok()
    }
}

fn unescaped(raw: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(raw.len());
    let mut at = 0;
    while at < raw.len() {
        if raw[at] != b'\\' {
            text.push(raw[at]);
            at += 1;
            continue;
        }
        at += 2;
        match raw[at - 1] {
            b'b' => text.push(8),
            b'f' => text.push(12),
            b'n' => text.push(b'\n'),
            b'r' => text.push(b'\r'),
            b't' => text.push(b'\t'),
            b'u' => {
                let mut unit = hex(&raw[at..at + 4]);
                at += 4;
                if (0xd800..0xdc00).contains(&unit) && raw[at..].starts_with(b"\\u") {
                    let second = hex(&raw[at + 2..at + 6]);
                    if (0xdc00..0xe000).contains(&second) {
                        unit = 0x10000 + ((unit - 0xd800) << 10) + (second - 0xdc00);
                        at += 6;
                    }
                }
                push(&mut text, unit);
            }
            other => text.push(other),
        }
    }
    text
}

fn hex(digits: &[u8]) -> u32 {
    digits.iter().fold(0, |sum, digit| sum * 16 + (*digit as char).to_digit(16).unwrap_or(0))
}

fn push(text: &mut Vec<u8>, unit: u32) {
    match char::from_u32(unit) {
        Some(character) => {
            text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        }
        None => text.extend([0xe0 | (unit >> 12) as u8, 0x80 | (unit >> 6 & 0x3f) as u8,
            0x80 | (unit & 0x3f) as u8]),
    }
}
