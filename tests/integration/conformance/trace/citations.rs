//! Finds what comments cite.

use super::place::{Place, place};

/// `[MQTT-..]` or `[MQTT3-..]` in a comment.
#[derive(Debug, PartialEq)]
pub(super) struct Citation {
    /// What stands between the brackets, whether there is such a statement or not.
    pub(super) id: String,
    /// From 1.
    pub(super) line: usize,
    pub(super) place: Place,
}

/// The citations in a source's comments.
pub(super) fn citations(source: &str) -> Vec<Citation> {
    let lines: Vec<&str> = source.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some((_, comment)) = line.split_once("//") else { continue };
        for cited in comment.split('[').skip(1).filter(|cited| is_id(cited)) {
            // Without its end it is an id that nobody knows, which is what the reader should hear.
            let id = cited.split_once(']').map_or(cited, |(id, _)| id).to_owned();
            found.push(Citation { id, line: at + 1, place: place(&lines, at) });
        }
    }
    found
}

/// Not every bracket that names MQTT, but all that try to be an id.
fn is_id(cited: &str) -> bool {
    cited.starts_with("MQTT-") || cited.starts_with("MQTT3")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is cited, and from where.
    fn cited(source: &str) -> Vec<(String, String, bool)> {
        let of = |c: Citation| (c.id, c.place.with_file("f.rs"), c.place.is_test);
        citations(source).into_iter().map(of).collect()
    }

    #[test]
    fn ids_are_found_in_comments_and_only_there() {
        let source = "\
//! Module [MQTT-1].
fn f() {
    let x = y[3]; // [MQTT-2], 3.1.1: [MQTT3-3]
    assert!(x, \"[MQTT-4]\");
    // [MQTT-5
}
";
        let f = |id: &str| (id.to_owned(), "f.rs f".to_owned(), false);
        let module = ("MQTT-1".to_owned(), "f.rs".to_owned(), false);
        assert_eq!(cited(source), [module, f("MQTT-2"), f("MQTT3-3"), f("MQTT-5")]);
    }

    #[test]
    fn places_are_the_items_around_or_below() {
        let source = "\
/// [MQTT-1]
pub(crate) const X: u8 = 1;

/// Text [MQTT-2].
#[derive(
    Debug
)]
pub enum E {
    /// [MQTT-3]
    Variant(u8),
}

impl<T: Into<X>> From<T> for E<T>
where
    T: Y,
{
    /// [MQTT-4]
    #[must_use]
    pub async fn g(
        x: u8,
    ) -> Result<(), ()> {
        match x {
            // [MQTT-5]
            1 => {}
        }
    }
}

/// [MQTT-6]
#[tokio::test]
async fn a_test() {
    fn inner() {
        // [MQTT-7]
    }
    if x {
        y(); // [MQTT-8]
    }
}

// [MQTT-9]
fn helper() {}

/// [MQTT-10]
#[test]
fn plain() {}
";
        let expected = [
            ("1", "X", false),
            ("2", "E", false),
            ("3", "E::Variant", false),
            ("4", "E::g", false),
            ("5", "E::g", false),
            ("6", "a_test", true),
            ("7", "a_test::inner", true),
            ("8", "a_test", true),
            ("9", "helper", false),
            ("10", "plain", true),
        ];
        let expected =
            expected.map(|(id, name, is_test)| (format!("MQTT-{id}"), format!("f.rs {name}"), is_test));
        assert_eq!(cited(source), expected);
    }
}
