//! The item that a line of a source belongs to. No compiler: it trusts the indentation that rustfmt gives.

/// An item.
#[derive(Debug, PartialEq)]
pub(super) struct Place {
    /// Its path in the file, such as `Type::function`; empty for the file as a whole.
    name: String,
    /// It is a test function, or within one.
    pub(super) is_test: bool,
}

impl Place {
    /// With the file before it.
    pub(super) fn with_file(&self, file: &str) -> String {
        format!("{file} {}", self.name).trim_end().to_owned()
    }
}

/// Where the comment on line `at` belongs: to the item below if it is that item's, else to the one around it.
pub(super) fn place(lines: &[&str], at: usize) -> Place {
    let comment = lines[at].trim_start();
    if comment.starts_with("//!") {
        return Place { name: String::new(), is_test: false };
    }
    let is_outermost = !lines[at].starts_with(' ');
    let item = if comment.starts_with("///") || (is_outermost && comment.starts_with("//")) {
        item_below(lines, at)
    } else {
        None
    };
    let (mut path, mut is_test) = around(lines, item.unwrap_or(at));
    if let Some(item) = item {
        path.extend(name(lines[item].trim_start()));
        is_test |= has_test_attribute(lines, item);
    }
    Place { name: path.join("::"), is_test }
}

/// The first line of code below a comment.
fn item_below(lines: &[&str], at: usize) -> Option<usize> {
    let mut in_attribute = false;
    for (below, line) in lines.iter().enumerate().skip(at + 1) {
        let line = line.trim_start();
        if in_attribute || line.starts_with("#[") {
            in_attribute = !line.ends_with(']');
        } else if !line.starts_with("//") {
            return Some(below);
        }
    }
    None
}

/// The items around a line, the outermost first, and whether one is a test.
fn around(lines: &[&str], at: usize) -> (Vec<String>, bool) {
    let mut indent = indentation(lines[at]);
    let (mut path, mut is_test) = (Vec::new(), false);
    for above in (0..at).rev() {
        let line = lines[above].trim_start();
        // The last line of a declaration that takes several has the indentation of its first.
        let is_end = [")", "]", "}", "{", "where", ">"].iter().any(|end| line.starts_with(end));
        if line.is_empty() || is_end || line.starts_with("//") || indentation(lines[above]) >= indent {
            continue;
        }
        indent = indentation(lines[above]);
        if is_item(line) {
            path.extend(name(line));
            is_test |= has_test_attribute(lines, above);
        }
    }
    path.reverse();
    (path, is_test)
}

fn indentation(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

fn has_test_attribute(lines: &[&str], item: usize) -> bool {
    let is_attached = |line: &&&str| line.starts_with("#[") || line.starts_with("//");
    let is_test = |line: &str| line == "#[test]" || line.starts_with("#[tokio::test");
    let above: Vec<&str> = lines[..item].iter().map(|line| line.trim_start()).collect();
    above.iter().rev().take_while(is_attached).any(|line| is_test(line))
}

/// The line without `pub`, `async` and the like.
fn declared(mut line: &str) -> &str {
    loop {
        let rest = if let Some(rest) = line.strip_prefix("pub(") {
            rest.split_once(") ").map(|(_, rest)| rest)
        } else {
            ["pub ", "async ", "unsafe ", "const fn"].iter().find_map(|word| {
                let rest = line.strip_prefix(word)?;
                Some(if *word == "const fn" { line.trim_start_matches("const ") } else { rest })
            })
        };
        match rest {
            Some(rest) => line = rest,
            None => return line,
        }
    }
}

const KEYWORDS: [&str; 10] =
    ["fn ", "struct ", "enum ", "trait ", "type ", "mod ", "static ", "const ", "union ", "macro_rules! "];

fn is_item(line: &str) -> bool {
    let line = declared(line);
    line.starts_with("impl") || KEYWORDS.iter().any(|keyword| line.starts_with(keyword))
}

/// What a line declares: an item, an enum's variant or a field.
fn name(line: &str) -> Option<String> {
    let line = declared(line);
    let name = if let Some(rest) = line.strip_prefix("impl") {
        let rest = rest.split_once(" for ").map_or_else(|| without_generics(rest), |(_, of)| of);
        rest.trim_start()
    } else {
        KEYWORDS.iter().find_map(|keyword| line.strip_prefix(keyword)).unwrap_or(line)
    };
    let end = name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len());
    (end > 0).then(|| name[..end].to_owned())
}

/// `<T: Into<X>> Type<T>` less what it begins with.
fn without_generics(rest: &str) -> &str {
    if !rest.starts_with('<') {
        return rest;
    }
    let mut depth = 0_usize;
    for (at, c) in rest.char_indices() {
        match c {
            '<' => depth += 1,
            '>' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &rest[at + 1..];
        }
    }
    rest
}
