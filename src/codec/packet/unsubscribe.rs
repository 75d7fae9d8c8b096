//! UNSUBSCRIBE (section 3.10): a client no longer wants messages.

use super::Body;
use crate::codec::{
    error::DecodeError,
    packet_id::PacketId,
    primitive::{Reader, Sink},
    property::{
        Property, PropertyReader, PropertySource, Repeatable, UserProperties, visit_user, write_properties,
    },
    version::Version,
};

/// One or more subscriptions to end.
#[derive(Clone, Debug, PartialEq)]
pub struct Unsubscribe<'a> {
    /// The UNSUBACK has the same.
    pub packet_id: PacketId,
    /// User properties. v5 only.
    pub user: UserProperties<'a>,
    /// At least one; well-formed MQTT strings, not yet valid topic filters.
    pub filters: Vec<&'a str>,
}

impl<'a> Unsubscribe<'a> {
    pub(super) fn read(r: &mut Reader<'a>, version: Version) -> Result<Self, DecodeError> {
        let packet_id = r.packet_id()?;
        let mut this = Self { packet_id, user: Vec::new(), filters: Vec::new() };
        if version.is_v5() {
            let mut properties = PropertyReader::new(r, Repeatable::User)?;
            while let Some(property) = properties.next()? {
                match property {
                    Property::User(name, value) => this.user.push((name, value)),
                    _ => return Err(DecodeError::PropertyMisplaced),
                }
            }
        }
        while !r.is_empty() {
            // [MQTT-3.10.3-1], [MQTT3-3.10.3-1]
            this.filters.push(r.string()?);
        }
        // [MQTT-3.10.3-2], [MQTT3-3.10.3-2]
        if this.filters.is_empty() {
            return Err(DecodeError::UnsubscribeEmpty);
        }
        Ok(this)
    }
}

impl Body for Unsubscribe<'_> {
    fn write_body(&self, version: Version, out: &mut impl Sink) {
        out.u16(self.packet_id.get());
        if version.is_v5() {
            write_properties(self, out);
        }
        for filter in &self.filters {
            out.string(filter);
        }
    }
}

impl PropertySource for Unsubscribe<'_> {
    fn visit<'s>(&'s self, visit: &mut impl FnMut(Property<'s>)) {
        visit_user(&self.user, visit);
    }
}
