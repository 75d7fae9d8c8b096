//! docs/interop.md says of each difference which test holds the broker to its choice.

use std::{fs, path::Path};

#[test]
fn the_tests_that_the_interop_page_names_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/interop.md")).unwrap();
    for entry in page.split("\n## ").skip(1) {
        let title = entry.lines().next().unwrap_or_default();
        let (_, named) = entry.split_once("\nTest").unwrap_or_else(|| panic!("{title:?} names no test"));
        let (mut source, mut tests) = (String::new(), 0);
        for name in named.split('`').skip(1).step_by(2) {
            if name.contains('/') {
                source = fs::read_to_string(root.join("tests/integration").join(name)).unwrap();
            } else {
                assert!(
                    source.contains(&format!("fn {name}()")),
                    "{title:?} names {name}, which is not there"
                );
                tests += 1;
            }
        }
        assert!(tests > 0, "{title:?} names a file and no test");
    }
}
