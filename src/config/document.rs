//! A parsed TOML file that remembers where everything stands, what was asked of it, and what was wrong.
//!
//! Serde would stop at the first error; this walks the table with its spans instead and collects them all.

use std::{
    cell::RefCell,
    fmt::Display,
    net::SocketAddr,
    ops::{Range, RangeInclusive},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    error::{ConfigError, Origin},
    value::{Choice, closest, parse_choice, parse_duration, parse_size, show_duration, show_size},
};

/// A longer value is cut in messages.
const SHOWN_CHARS_MAX: usize = 60;

/// The file, and the mistakes found in it so far.
pub(super) struct Document<'t> {
    file: PathBuf,
    text: &'t str,
    table: Spanned<DeTable<'t>>,
    errors: RefCell<Vec<ConfigError>>,
    /// Every key that was asked for, with its section: what the schema is, for the tests.
    asked: RefCell<Vec<String>>,
}

/// One table of the file. Keys nobody has asked for when it is finished are reported as unknown.
pub(super) struct Section<'d> {
    document: &'d Document<'d>,
    /// Its name in messages, with a dot behind it; empty for the root.
    prefix: String,
    line: usize,
    table: Option<&'d DeTable<'d>>,
    asked: Vec<&'static str>,
}

impl<'t> Document<'t> {
    /// Parses as much of `text` as can be understood; the rest is noted as errors.
    pub(super) fn parse(file: &Path, text: &'t str) -> Self {
        let (table, syntax_errors) = DeTable::parse_recoverable(text);
        let document = Self {
            file: file.to_owned(),
            text,
            table,
            errors: RefCell::default(),
            asked: RefCell::default(),
        };
        for error in syntax_errors {
            let line = error.span().map_or(1, |span| document.line(&span));
            document.report(line, String::new(), error.message().to_owned());
        }
        document
    }

    /// The top of the file.
    pub(super) fn root(&self) -> Section<'_> {
        Section {
            document: self,
            prefix: String::new(),
            line: 1,
            table: Some(self.table.get_ref()),
            asked: Vec::new(),
        }
    }

    /// Notes a mistake. One line is reported once: what a syntax error leaves behind would only confuse.
    pub(super) fn report(&self, line: usize, key: String, message: String) {
        let origin = Origin::File { file: self.file.clone(), line: Some(line) };
        let mut errors = self.errors.borrow_mut();
        if !errors.iter().any(|error| error.origin == origin && (error.key.is_empty() || error.key == key)) {
            errors.push(ConfigError { origin, key, message });
        }
    }

    /// Notes a mistake in a flag or variable.
    pub(super) fn report_flag(&self, flag: &'static str, message: String) {
        self.errors.borrow_mut().push(ConfigError {
            origin: Origin::Flag(flag),
            key: String::new(),
            message,
        });
    }

    /// The mistakes: flags first, then line by line.
    pub(super) fn into_errors(self) -> Vec<ConfigError> {
        let mut errors = self.errors.into_inner();
        errors.sort_by_key(|error| match error.origin {
            Origin::Flag(_) => None,
            Origin::File { line, .. } => line,
        });
        errors
    }

    /// Every key that was asked for, like `store.path` or `listeners[].bind`.
    #[cfg(test)]
    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.borrow().clone()
    }

    fn line(&self, span: &Range<usize>) -> usize {
        let before = self.text.as_bytes().get(..span.start).unwrap_or(self.text.as_bytes());
        before.split(|byte| *byte == b'\n').count()
    }

    fn shown(&self, value: &Spanned<DeValue<'_>>) -> String {
        let text = self.text.get(value.span()).unwrap_or_default();
        let first_line = text.lines().next().unwrap_or_default();
        match first_line.char_indices().nth(SHOWN_CHARS_MAX) {
            Some((end, _)) => format!("{}...", first_line.get(..end).unwrap_or_default()),
            None if first_line.len() < text.len() => format!("{first_line}..."),
            None => first_line.to_owned(),
        }
    }
}

impl<'d> Section<'d> {
    /// Reads the table `key` with `read` and reports what is unknown in it. `read` runs also when there is none.
    pub(super) fn section(&mut self, key: &'static str, read: impl FnOnce(&mut Section<'d>)) {
        let found = self.find(key);
        let table = found.and_then(|value| value.get_ref().as_table());
        if let (Some(value), None) = (found, table) {
            self.wrong(key, value, "is not a section; write it as a line of its own", &format!("[{key}]"));
        }
        let mut section = Section {
            document: self.document,
            prefix: format!("{}{key}.", self.prefix),
            line: found.map_or(self.line, |value| self.document.line(&value.span())),
            table,
            asked: Vec::new(),
        };
        read(&mut section);
        section.finish();
    }

    /// The tables of the array `key`; none when the key is absent. Each must be finished by the caller.
    pub(super) fn sections(&mut self, key: &'static str) -> Option<Vec<Section<'d>>> {
        let value = self.find(key)?;
        let how = format!("[[{key}]]");
        let Some(array) = value.get_ref().as_array() else {
            self.wrong(key, value, "is not a list; write each entry under", &how);
            return None;
        };
        if array.is_empty() {
            self.wrong(
                key,
                value,
                "has no entry; leave the key out for the default, or write each entry under",
                &how,
            );
            return None;
        }
        let mut sections = Vec::with_capacity(array.len());
        for (i, entry) in array.iter().enumerate() {
            match entry.get_ref().as_table() {
                Some(table) => sections.push(Section {
                    document: self.document,
                    prefix: format!("{}{key}[{i}].", self.prefix),
                    line: self.document.line(&entry.span()),
                    table: Some(table),
                    asked: Vec::new(),
                }),
                None => self.wrong(key, entry, "is not a table; write each entry under", &how),
            }
        }
        Some(sections)
    }

    /// Names the section after itself in messages: `listeners.tls.` says more than `listeners[1].`.
    pub(super) fn rename(&mut self, prefix: String) {
        self.prefix = prefix;
    }

    /// Reads a duration like `"10s"` within `range`.
    pub(super) fn duration(
        &mut self,
        key: &'static str,
        target: &mut Duration,
        range: &RangeInclusive<Duration>,
    ) {
        self.read(key, target, |value| parse_duration_value(value, range));
    }

    /// Reads a duration within `range` for which there is no default.
    pub(super) fn optional_duration(
        &mut self,
        key: &'static str,
        target: &mut Option<Duration>,
        range: &RangeInclusive<Duration>,
    ) {
        self.read(key, target, |value| parse_duration_value(value, range).map(Some));
    }

    /// Reads a duration of whole seconds within `range` for which there is no default.
    pub(super) fn optional_seconds(
        &mut self,
        key: &'static str,
        target: &mut Option<u16>,
        range: &RangeInclusive<u16>,
    ) {
        let seconds = |count: &u16| Duration::from_secs(u64::from(*count));
        let range = seconds(range.start())..=seconds(range.end());
        self.read(key, target, |value| {
            let duration = parse_duration_value(value, &range)?;
            let whole = u16::try_from(duration.as_secs()).ok().filter(|count| seconds(count) == duration);
            whole.map(Some).ok_or_else(|| "is not in whole seconds".to_owned())
        });
    }

    /// Reads a size like `"16MiB"` within `range`, in bytes. Whatever the range admits must fit into `T`.
    pub(super) fn size<T: TryFrom<usize>>(
        &mut self,
        key: &'static str,
        target: &mut T,
        range: &RangeInclusive<usize>,
    ) {
        self.read(key, target, |value| {
            let bytes = value.as_str().and_then(parse_size);
            let bytes = bytes.ok_or("is not a size; use e.g. \"512B\", \"64KiB\" or \"16MiB\"")?;
            let bytes = within(bytes, range, |bytes| format!("\"{}\"", show_size(*bytes)))?;
            T::try_from(bytes).map_err(|_| "is too large".to_owned())
        });
    }

    /// Reads a size within `range` for which there is no default, in bytes.
    pub(super) fn optional_size(
        &mut self,
        key: &'static str,
        target: &mut Option<u64>,
        range: &RangeInclusive<usize>,
    ) {
        let mut bytes = 0;
        self.size(key, &mut bytes, range);
        if self.has(key) {
            *target = Some(bytes);
        }
    }

    /// Reads a whole number within `range`.
    pub(super) fn count<T>(&mut self, key: &'static str, target: &mut T, range: &RangeInclusive<T>)
    where
        T: TryFrom<i128> + PartialOrd + Display + Copy,
    {
        self.read(key, target, |value| {
            let allowed = || format!("is not a whole number from {} to {}", range.start(), range.end());
            let integer = value.as_integer().ok_or_else(allowed)?;
            // The parser keeps the digits as they were written, and has checked that they are digits.
            let number = i128::from_str_radix(integer.as_str(), integer.radix()).map_err(|_| allowed())?;
            T::try_from(number).ok().filter(|number| range.contains(number)).ok_or_else(allowed)
        });
    }

    /// Reads `true` or `false`.
    pub(super) fn flag(&mut self, key: &'static str, target: &mut bool) {
        self.read(key, target, |value| value.as_bool().ok_or_else(|| "is neither true nor false".to_owned()));
    }

    /// Reads one of the names of `T`.
    pub(super) fn choice<T: Choice>(&mut self, key: &'static str, target: &mut T) {
        self.read(key, target, |value| {
            let text = value.as_str().unwrap_or_default();
            parse_choice(text).map_err(|allowed| format!("is not known; {allowed}"))
        });
    }

    /// Reads one of the names of `T` for which there is no default; it is an error when it is missing.
    pub(super) fn required_choice<T: Choice>(&mut self, key: &'static str) -> Option<T> {
        let mut found: Option<T> = None;
        self.read(key, &mut found, |value| {
            let text = value.as_str().unwrap_or_default();
            parse_choice(text).map(Some).map_err(|allowed| format!("is not known; {allowed}"))
        });
        if !self.has(key) {
            self.complain(key, format!("is missing; {}", parse_choice::<T>("").err().unwrap_or_default()));
        }
        found
    }

    /// Reads an address with its port; it is an error when it is missing.
    pub(super) fn required_address(&mut self, key: &'static str) -> Option<SocketAddr> {
        const HOW: &str = "use an IP address and a port, e.g. \"127.0.0.1:1883\" or \"[::1]:8883\"";
        let mut found: Option<SocketAddr> = None;
        self.read(key, &mut found, |value| {
            let address = value.as_str().and_then(|text| text.parse().ok());
            address.map(Some).ok_or_else(|| format!("is not an address; {HOW}"))
        });
        if !self.has(key) {
            self.complain(key, format!("is missing; {HOW}"));
        }
        found
    }

    /// Reads an address with its port; an empty text is none.
    pub(super) fn address_or_none(&mut self, key: &'static str, target: &mut Option<SocketAddr>) {
        self.read(key, target, |value| match value.as_str() {
            Some("") => Ok(None),
            text => {
                let address = text.and_then(|text| text.parse().ok());
                address.map(Some).ok_or_else(|| {
                    "is not an address; use an IP address and a port, e.g. \"127.0.0.1:9883\", or \"\" for none"
                        .to_owned()
                })
            }
        });
    }

    /// Reads a path; an empty one is refused.
    pub(super) fn path(&mut self, key: &'static str, target: &mut PathBuf) {
        self.read(key, target, parse_path_value);
    }

    /// Reads a path for which there is no default.
    pub(super) fn optional_path(&mut self, key: &'static str) -> Option<PathBuf> {
        let mut found = None;
        self.read(key, &mut found, |value| parse_path_value(value).map(Some));
        found
    }

    /// Reads a text that `fits`; `how` says what would.
    pub(super) fn text(
        &mut self,
        key: &'static str,
        target: &mut String,
        fits: impl FnOnce(&str) -> bool,
        how: &str,
    ) {
        self.read(key, target, |value| {
            value.as_str().filter(|text| fits(text)).map(str::to_owned).ok_or_else(|| how.to_owned())
        });
    }

    /// Reads a list of texts, each a `T`; `what` they are goes into the message.
    pub(super) fn list<T: FromStr>(&mut self, key: &'static str, target: &mut Vec<T>, what: &str) {
        self.read(key, target, |value| {
            let parse = |entry: &Spanned<DeValue<'_>>| entry.get_ref().as_str()?.parse().ok();
            let entries = value.as_array().and_then(|array| array.iter().map(parse).collect());
            entries.ok_or_else(|| format!("is not a list of {what}"))
        });
    }

    /// Reads the mode of a file as a text of octal digits, like `"0660"`: TOML's own numbers could be taken for decimal.
    pub(super) fn file_mode(&mut self, key: &'static str, target: &mut u32) {
        self.read(key, target, |value| {
            let digits = value.as_str().filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
            let mode = digits.and_then(|digits| u32::from_str_radix(digits, 8).ok());
            mode.filter(|mode| *mode <= 0o777).ok_or_else(|| "is not a mode; use e.g. \"0660\"".to_owned())
        });
    }

    /// Reads a text of 1 to 64 letters, digits, `-`, `_` or `.`.
    pub(super) fn optional_name(&mut self, key: &'static str) -> Option<String> {
        let mut found = None;
        self.read(key, &mut found, |value| {
            let fits = |name: &&str| {
                (1..=64).contains(&name.len())
                    && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
            };
            let name = value.as_str().filter(fits);
            let name = name.ok_or("is not a name; use 1 to 64 letters, digits, '-', '_' or '.'")?;
            Ok(Some(name.to_owned()))
        });
        found
    }

    /// Reads a text that `is_right`; `otherwise` says what is wrong with another.
    pub(super) fn optional_text(
        &mut self,
        key: &'static str,
        is_right: impl Fn(&str) -> bool,
        otherwise: &str,
    ) -> Option<String> {
        let mut found = None;
        self.read(key, &mut found, |value| {
            let text = value.as_str().filter(|text| is_right(text));
            Ok(Some(text.ok_or_else(|| otherwise.to_owned())?.to_owned()))
        });
        found
    }

    /// Notes a mistake about `key`, at its line, or at the section's when it is absent.
    pub(super) fn complain(&self, key: &str, message: String) {
        let line = self.entry(key).map_or(self.line, |(line, _)| line);
        self.document.report(line, format!("{}{key}", self.prefix), message);
    }

    /// Reports the keys nobody asked for.
    pub(super) fn finish(self) {
        let Some(table) = self.table else { return };
        for (key, _) in table {
            let name: &str = key.get_ref();
            if self.asked.contains(&name) {
                continue;
            }
            let hint = match closest(name, &self.asked) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("allowed here: {}", self.asked.join(", ")),
            };
            let place = self.prefix.trim_end_matches('.').to_owned();
            // The key is part of the message, so that two unknown keys on one line are both told.
            let message = format!("unknown key `{}`; {hint}", name.escape_debug());
            let key_path = if place.is_empty() {
                name.escape_debug().to_string()
            } else {
                format!("{place}.{}", name.escape_debug())
            };
            self.document.report(self.document.line(&key.span()), key_path, message);
        }
    }

    /// Whether the file has the key, whatever its value.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entry(key).is_some()
    }

    fn read<T>(
        &mut self,
        key: &'static str,
        target: &mut T,
        parse: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) {
        if let Some(value) = self.find(key) {
            match parse(value.get_ref()) {
                Ok(parsed) => *target = parsed,
                Err(why) => self.wrong(key, value, &why, ""),
            }
        }
    }

    fn find(&mut self, key: &'static str) -> Option<&'d Spanned<DeValue<'d>>> {
        self.asked.push(key);
        self.document.asked.borrow_mut().push(format!("{}{key}", self.prefix));
        self.entry(key).map(|(_, value)| value)
    }

    fn entry(&self, key: &str) -> Option<(usize, &'d Spanned<DeValue<'d>>)> {
        let (found, value) = self.table?.iter().find(|(name, _)| name.get_ref().as_ref() == key)?;
        Some((self.document.line(&found.span()), value))
    }

    fn wrong(&self, key: &str, value: &Spanned<DeValue<'_>>, why: &str, how: &str) {
        let message = format!("{} {why} {how}", self.document.shown(value));
        let line = self.document.line(&value.span());
        self.document.report(line, format!("{}{key}", self.prefix), message.trim_end().to_owned());
    }
}

fn parse_duration_value(value: &DeValue<'_>, range: &RangeInclusive<Duration>) -> Result<Duration, String> {
    let duration = value.as_str().and_then(parse_duration);
    let duration = duration.ok_or("is not a duration; use e.g. \"500ms\", \"10s\", \"30d\"")?;
    within(duration, range, |duration| format!("\"{}\"", show_duration(*duration)))
}

fn parse_path_value(value: &DeValue<'_>) -> Result<PathBuf, String> {
    let path = value.as_str().filter(|text| !text.is_empty() && !text.contains('\0'));
    path.map(PathBuf::from).ok_or_else(|| "is not a path; use e.g. \"./data\"".to_owned())
}

fn within<T: PartialOrd>(
    value: T,
    range: &RangeInclusive<T>,
    show: impl Fn(&T) -> String,
) -> Result<T, String> {
    if range.contains(&value) {
        return Ok(value);
    }
    Err(format!("is out of range; allowed is {} to {}", show(range.start()), show(range.end())))
}
