//! SUBSCRIBE (section 3.8): a client asks for messages.

use super::Body;
use crate::codec::{
    error::DecodeError,
    packet_id::PacketId,
    primitive::{Reader, Sink},
    property::{
        Property, PropertyReader, PropertySource, Repeatable, UserProperties, visit_user, write_properties,
    },
    qos::QoS,
    version::Version,
};

/// One or more subscriptions.
#[derive(Clone, Debug, PartialEq)]
pub struct Subscribe<'a> {
    /// The SUBACK has the same.
    pub packet_id: PacketId,
    /// 1..=268,435,455, comes back in each PUBLISH that matches. v5 only.
    pub subscription_id: Option<u32>,
    /// User properties. v5 only.
    pub user: UserProperties<'a>,
    /// At least one.
    pub filters: Vec<SubscribeFilter<'a>>,
}

/// `filter` is a well-formed MQTT string, not yet a valid topic filter: the broker parses it and answers 0x8F.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscribeFilter<'a> {
    /// As the client wrote it, `$share/group/` included.
    pub filter: &'a str,
    /// What is asked for.
    pub options: SubscribeOptions,
}

/// Subscription options (section 3.8.3.1). v3 has only the quality of service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SubscribeOptions {
    /// The most that messages are sent with.
    pub qos: QoS,
    /// Do not send back what this client has published.
    pub no_local: bool,
    /// Keep the RETAIN flag as it was published.
    pub retain_as_published: bool,
    /// When retained messages are sent.
    pub retain_handling: RetainHandling,
}

/// When a subscription is answered with retained messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RetainHandling {
    /// At every SUBSCRIBE: what v3 does.
    #[default]
    Send = 0,
    /// Only if the subscription did not exist before.
    SendIfNew = 1,
    /// Never.
    DoNotSend = 2,
}

const NO_LOCAL: u8 = 0b0000_0100;
const RETAIN_AS_PUBLISHED: u8 = 0b0000_1000;
const RETAIN_HANDLING_SHIFT: u8 = 4;
const RESERVED_V5: u8 = 0b1100_0000;
const RESERVED_V3: u8 = 0b1111_1100;

impl<'a> Subscribe<'a> {
    pub(super) fn read(r: &mut Reader<'a>, version: Version) -> Result<Self, DecodeError> {
        let packet_id = r.packet_id()?;
        let mut this = Self { packet_id, subscription_id: None, user: Vec::new(), filters: Vec::new() };
        if version.is_v5() {
            this.read_properties(r)?;
        }
        while !r.is_empty() {
            this.filters.push(SubscribeFilter::read(r, version)?);
        }
        // [MQTT-3.8.3-2], [MQTT3-3.8.3-3]
        if this.filters.is_empty() {
            return Err(DecodeError::SubscribeEmpty);
        }
        Ok(this)
    }

    fn read_properties(&mut self, r: &mut Reader<'a>) -> Result<(), DecodeError> {
        let mut properties = PropertyReader::new(r, Repeatable::User)?;
        while let Some(property) = properties.next()? {
            match property {
                Property::SubscriptionId(value) => self.subscription_id = Some(value),
                Property::User(name, value) => self.user.push((name, value)),
                _ => return Err(DecodeError::PropertyMisplaced),
            }
        }
        Ok(())
    }
}

impl Body for Subscribe<'_> {
    fn write_body(&self, version: Version, out: &mut impl Sink) {
        out.u16(self.packet_id.get());
        if version.is_v5() {
            write_properties(self, out);
        }
        for filter in &self.filters {
            out.string(filter.filter);
            out.u8(filter.options.to_byte(version));
        }
    }
}

impl PropertySource for Subscribe<'_> {
    fn visit<'s>(&'s self, visit: &mut impl FnMut(Property<'s>)) {
        if let Some(value) = self.subscription_id {
            visit(Property::SubscriptionId(value));
        }
        visit_user(&self.user, visit);
    }
}

impl<'a> SubscribeFilter<'a> {
    fn read(r: &mut Reader<'a>, version: Version) -> Result<Self, DecodeError> {
        // [MQTT-3.8.3-1], [MQTT3-3.8.3-1]
        let filter = r.string()?;
        let options = SubscribeOptions::from_byte(r.u8()?, version)?;
        // [MQTT-3.8.3-4]
        if options.no_local && filter.starts_with("$share/") {
            return Err(DecodeError::NoLocalOnShared);
        }
        Ok(Self { filter, options })
    }
}

impl SubscribeOptions {
    fn from_byte(byte: u8, version: Version) -> Result<Self, DecodeError> {
        // [MQTT-3.8.3-5], [MQTT3-3.8.3-4]
        let reserved = if version.is_v5() { RESERVED_V5 } else { RESERVED_V3 };
        if byte & reserved != 0 {
            return Err(DecodeError::SubscribeOptionsReserved);
        }
        let retain_handling = match byte >> RETAIN_HANDLING_SHIFT & 0b11 {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return Err(DecodeError::RetainHandling3),
        };
        Ok(Self {
            qos: QoS::try_from(byte & 0b11).map_err(|_| DecodeError::SubscribeQos3)?,
            no_local: byte & NO_LOCAL != 0,
            retain_as_published: byte & RETAIN_AS_PUBLISHED != 0,
            retain_handling,
        })
    }

    fn to_byte(self, version: Version) -> u8 {
        let mut byte = u8::from(self.qos);
        if version.is_v5() {
            if self.no_local {
                byte |= NO_LOCAL;
            }
            if self.retain_as_published {
                byte |= RETAIN_AS_PUBLISHED;
            }
            byte |= (self.retain_handling as u8) << RETAIN_HANDLING_SHIFT;
        }
        byte
    }
}
