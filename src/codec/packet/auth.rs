//! AUTH (section 3.15): a step of extended authentication. 5.0 only.

use super::{Body, ReasonProperties, read_reason};
use crate::codec::{
    error::DecodeError,
    primitive::{Reader, Sink},
    property::{Property, PropertyReader, PropertySource, Repeatable, write_properties},
    reason::ReasonCode,
    version::Version,
};

/// A step of extended authentication.
#[derive(Clone, Debug, PartialEq)]
pub struct Auth<'a> {
    /// `Success`, `ContinueAuthentication` or `ReAuthenticate`.
    pub reason: ReasonCode,
    /// Name of the method. `None` only in the form without any bytes, which means success and nothing else; with
    /// anything else set, a packet without it is refused by its receiver.
    pub method: Option<&'a str>,
    /// What the method exchanges.
    pub data: Option<&'a [u8]>,
    /// Reason string and user properties.
    pub properties: ReasonProperties<'a>,
}

/// [MQTT-3.15.2-1]
const REASONS: &[ReasonCode] =
    &[ReasonCode::Success, ReasonCode::ContinueAuthentication, ReasonCode::ReAuthenticate];

impl<'a> Auth<'a> {
    pub(super) fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let mut this = Self {
            reason: ReasonCode::Success,
            method: None,
            data: None,
            properties: ReasonProperties::default(),
        };
        // The only short form (section 3.15.2.1) is the empty one.
        if r.is_empty() {
            return Ok(this);
        }
        this.reason = read_reason(r, REASONS)?;
        this.read_properties(r)?;
        // Section 3.15.2.2.2
        if this.method.is_none() {
            return Err(DecodeError::AuthenticationMethodMissing);
        }
        Ok(this)
    }

    fn read_properties(&mut self, r: &mut Reader<'a>) -> Result<(), DecodeError> {
        let mut properties = PropertyReader::new(r, Repeatable::User)?;
        while let Some(property) = properties.next()? {
            match property {
                Property::AuthenticationMethod(value) => self.method = Some(value),
                Property::AuthenticationData(value) => self.data = Some(value),
                Property::ReasonString(value) => self.properties.reason_string = Some(value),
                Property::User(name, value) => self.properties.user.push((name, value)),
                _ => return Err(DecodeError::PropertyMisplaced),
            }
        }
        Ok(())
    }

    fn is_plain_success(&self) -> bool {
        self.reason == ReasonCode::Success
            && self.method.is_none()
            && self.data.is_none()
            && self.properties.is_empty()
    }
}

impl Body for Auth<'_> {
    fn write_body(&self, _version: Version, out: &mut impl Sink) {
        if !self.is_plain_success() {
            out.u8(self.reason.into());
            write_properties(self, out);
        }
    }
}

impl PropertySource for Auth<'_> {
    fn visit<'s>(&'s self, visit: &mut impl FnMut(Property<'s>)) {
        if let Some(value) = self.method {
            visit(Property::AuthenticationMethod(value));
        }
        if let Some(value) = self.data {
            visit(Property::AuthenticationData(value));
        }
        self.properties.visit(visit);
    }
}
