//! YAML text as a tree that knows its lines.
//!
//! Values stay text here: what a scalar means is decided by the key it stands under, so `no`, `1.10` and a time stay what
//! was written. Everything is bounded, so that no file can exhaust the stack or the memory.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError};

use super::fault::{Faults, printable};
use super::substitute::below;

/// Nesting of a valid file is below ten.
const DEPTH_MAX: usize = 32;
/// Aliases can multiply a small file into a large tree.
const NODES_MAX: usize = 100_000;

/// A value and the line it begins on.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// From 1.
    pub line: usize,
    pub value: Value,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    /// Nothing, `~` or `null`: as if the key were not there.
    Null,
    Scalar(Scalar),
    List(Vec<Node>),
    /// In the order of the file; keys are unique.
    Map(Vec<Entry>),
}

/// A scalar before and after substitution.
#[derive(Debug, Clone)]
pub(super) struct Scalar {
    /// As it stands in the file. Error messages show this one: a variable may hold a secret.
    pub raw: String,
    /// With variables substituted; none when that failed, which was reported.
    pub text: Option<String>,
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub key: String,
    pub line: usize,
    pub node: Node,
}

/// Reads one YAML document. Returns none when the text is no YAML at all; smaller faults leave a tree.
pub(super) fn parse(text: &str, faults: &mut Faults) -> Option<Node> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder = Builder { faults, root: None, stack: Vec::new(), anchors: HashMap::new(), nodes: 0 };
    for event in Parser::new_from_str(text) {
        let fed = match event {
            Ok((event, span)) => builder.feed(event, span.start.line()),
            Err(error) => Err(scan_fault(text, &error)),
        };
        if let Err((line, message)) = fed {
            faults.add(line, "", message);
            return None;
        }
    }
    let root = builder.root;
    if root.is_none() {
        faults.add(1, "", "the file is empty; docs/configuration.md has an example");
    }
    root
}

fn scan_fault(text: &str, error: &ScanError) -> (usize, String) {
    let line = error.marker().line();
    let indented_by_tab = |line: usize| {
        let source = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
        source.chars().take_while(|c| c.is_whitespace()).any(|c| c == '\t')
    };
    // The parser notices some tabs only at the line after them.
    match [line, line.saturating_sub(1)].into_iter().find(|line| indented_by_tab(*line)) {
        Some(line) => (line, "the line is indented with a tab; YAML wants spaces".to_owned()),
        None => (line, format!("not valid YAML: {}", printable(error.info()))),
    }
}

type Fed = Result<(), (usize, String)>;

/// A list or mapping that is not closed yet.
struct Open {
    line: usize,
    anchor: usize,
    /// Levels below the deepest leaf so far.
    height: usize,
    kind: OpenKind,
}

enum OpenKind {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, key: Option<(String, usize)> },
}

struct Builder<'f> {
    faults: &'f mut Faults,
    root: Option<Node>,
    stack: Vec<Open>,
    /// What an alias stands for: its size, height and tree.
    anchors: HashMap<usize, (usize, usize, Node)>,
    nodes: usize,
}

impl Builder<'_> {
    fn feed(&mut self, event: Event<'_>, line: usize) -> Fed {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) if self.root.is_some() => {
                Err((line, "a second document begins here; one file holds one document".to_owned()))
            }
            Event::DocumentStart(_) => Ok(()),
            Event::SequenceStart(anchor, tag) => {
                no_tag(tag.is_some(), line)?;
                self.open(Open { line, anchor, height: 0, kind: OpenKind::List(Vec::new()) })
            }
            Event::MappingStart(anchor, tag) => {
                no_tag(tag.is_some(), line)?;
                self.open(Open { line, anchor, height: 0, kind: OpenKind::Map { entries: Vec::new(), key: None } })
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Scalar(text, style, anchor, tag) => {
                no_tag(tag.is_some(), line)?;
                let null = style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let scalar = || Scalar { raw: text.into_owned(), text: None };
                let value = if null { Value::Null } else { Value::Scalar(scalar()) };
                self.place(Node { line, value }, 1, 0, anchor)
            }
            Event::Alias(anchor) => {
                let Some((nodes, height, node)) = self.anchors.get(&anchor) else {
                    return Err((line, "an alias stands inside the value that it names".to_owned()));
                };
                let (nodes, height) = (*nodes, *height);
                // Checked before the copy is made, so that no small file becomes a large tree.
                self.check_size(nodes, height, line)?;
                let node = node.clone();
                self.place(node, nodes, height, 0)
            }
        }
    }

    fn open(&mut self, open: Open) -> Fed {
        let line = open.line;
        self.stack.push(open);
        self.check_size(0, 0, line)
    }

    fn close(&mut self) -> Fed {
        let Some(Open { line, anchor, height, kind }) = self.stack.pop() else { return Ok(()) };
        let value = match kind {
            OpenKind::List(items) => Value::List(items),
            OpenKind::Map { entries, .. } => Value::Map(entries),
        };
        self.place(Node { line, value }, 1, height + 1, anchor)
    }

    fn check_size(&self, more: usize, height: usize, line: usize) -> Fed {
        if self.stack.len() + height > DEPTH_MAX {
            return Err((line, format!("nested more than {DEPTH_MAX} levels deep")));
        }
        if self.nodes + more > NODES_MAX {
            return Err((line, format!("more than {NODES_MAX} values, aliases counted each time they are used")));
        }
        Ok(())
    }

    /// Puts a finished node where it belongs: the root, a list, a key or the value of a key.
    fn place(&mut self, mut node: Node, nodes: usize, height: usize, anchor: usize) -> Fed {
        self.check_size(nodes, height, node.line)?;
        self.nodes += nodes;
        if anchor > 0 {
            self.anchors.insert(anchor, (size(&node), height, node.clone()));
            // The kept copy counts too.
            self.nodes += size(&node);
        }
        let Some((parent, above)) = self.stack.split_last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        parent.height = parent.height.max(height);
        match &mut parent.kind {
            OpenKind::List(items) => items.push(node),
            OpenKind::Map { entries, key } => match key.take() {
                None => *key = Some(key_text(&node)?),
                Some((name, line)) => {
                    if let Value::Null = node.value {
                        node.line = line;
                    }
                    match entries.iter().find(|entry| entry.key == name) {
                        Some(first) => {
                            let message = format!("duplicate key '{}', first on line {}", printable(&name), first.line);
                            self.faults.add(line, &path(above), message);
                        }
                        None => entries.push(Entry { key: name, line, node }),
                    }
                }
            },
        }
        Ok(())
    }
}

/// The key path of the value that is being read below these.
fn path(open: &[Open]) -> String {
    open.iter().fold(String::new(), |path, open| match &open.kind {
        OpenKind::List(items) => format!("{path}[{}]", items.len()),
        OpenKind::Map { key, .. } => below(&path, key.as_ref().map_or("", |(name, _)| name)),
    })
}

fn no_tag(tagged: bool, line: usize) -> Fed {
    if tagged { Err((line, "YAML tags (!name) are not used here".to_owned())) } else { Ok(()) }
}

fn key_text(node: &Node) -> Result<(String, usize), (usize, String)> {
    match &node.value {
        Value::Scalar(scalar) => Ok((scalar.raw.clone(), node.line)),
        _ => Err((node.line, "a key must be a name".to_owned())),
    }
}

/// Values in the tree. The recursion is as deep as the tree, which is bounded.
fn size(node: &Node) -> usize {
    1 + match &node.value {
        Value::Null | Value::Scalar(_) => 0,
        Value::List(items) => items.iter().map(size).sum(),
        Value::Map(entries) => entries.iter().map(|entry| size(&entry.node)).sum(),
    }
}
