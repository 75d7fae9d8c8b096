//! Integration tests: one binary.

mod codec_oracle;
