//! Cuts Rust source into tokens, as far as finding paths in it needs.

/// A word, a `::`, or any other single character.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Token {
    /// From 1.
    pub(super) line: usize,
    pub(super) text: String,
}

/// Cuts a source into tokens, without comments, literals and lifetimes.
pub(super) fn tokens(source: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = source;
    let mut line = 1;
    while let Some(first) = rest.chars().next() {
        let (bytes, kept) = next_token(rest, first);
        let (text, after) = rest.split_at(bytes);
        if kept {
            tokens.push(Token { line, text: text.strip_prefix("r#").unwrap_or(text).to_owned() });
        }
        line += text.matches('\n').count();
        rest = after;
    }
    tokens
}

/// How long what `rest` begins with is, and whether it is a token.
fn next_token(rest: &str, first: char) -> (usize, bool) {
    if rest.starts_with("//") {
        return (rest.find('\n').unwrap_or(rest.len()), false);
    }
    if rest.starts_with("/*") {
        return (block_comment(rest), false);
    }
    if let Some(bytes) = string(rest).or_else(|| character(rest)) {
        return (bytes, false);
    }
    if first.is_alphanumeric() || first == '_' {
        let raw = if rest.starts_with("r#") { 2 } else { 0 };
        let word = rest.get(raw..).unwrap_or_default();
        let end = word.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(word.len());
        return (raw + end, true);
    }
    if rest.starts_with("::") {
        return (2, true);
    }
    (first.len_utf8(), !first.is_whitespace())
}

/// Block comments nest.
fn block_comment(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(tail) = rest.get(at..).filter(|tail| !tail.is_empty()) {
        if tail.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if tail.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += tail.chars().next().map_or(1, char::len_utf8);
        }
    }
    at
}

/// The length of a string literal of any kind, if there is one.
fn string(rest: &str) -> Option<usize> {
    let raw = ["r", "br", "cr"].iter().find_map(|prefix| rest.strip_prefix(prefix));
    if let Some(tail) = raw {
        let hashes = tail.len() - tail.trim_start_matches('#').len();
        if let Some(content) = tail.get(hashes..).and_then(|tail| tail.strip_prefix('"')) {
            let end = format!("\"{}", "#".repeat(hashes));
            let close = content.find(&end).map_or(content.len(), |at| at + end.len());
            return Some(rest.len() - content.len() + close);
        }
    }
    let content = ["\"", "b\"", "c\""].iter().find_map(|prefix| rest.strip_prefix(prefix))?;
    Some(rest.len() - content.len() + closing(content, '"'))
}

/// The length of a character literal or a lifetime, if there is one.
fn character(rest: &str) -> Option<usize> {
    let content = rest.strip_prefix("b'").or_else(|| rest.strip_prefix('\''))?;
    let mut chars = content.chars();
    let (first, second) = (chars.next()?, chars.next());
    if first == '\\' || second == Some('\'') {
        return Some(rest.len() - content.len() + closing(content, '\''));
    }
    let end = content.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(content.len());
    Some(rest.len() - content.len() + end)
}

/// Where a literal ends, its quote included; a quote behind a backslash does not end it.
fn closing(content: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in content.char_indices() {
        if c == quote && !escaped {
            return at + 1;
        }
        escaped = c == '\\' && !escaped;
    }
    content.len()
}
