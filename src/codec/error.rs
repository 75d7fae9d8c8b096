//! What a peer can do wrong, and the reason code it is told.

use super::reason::ReasonCode;

/// One table: the variant, the reason code, the sentence for the log.
macro_rules! decode_errors {
    ($($(#[$doc:meta])* $variant:ident => $reason:ident, $message:literal;)*) => {
        /// Why bytes are not a packet. Every variant is the peer's doing, and ends the connection (section 4.13);
        /// input that is merely incomplete is no error. Sorted by the reason code it is answered with in 5.0: a v3 peer
        /// is just disconnected, or refused if the packet was CONNECT.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
        #[non_exhaustive]
        pub enum DecodeError {
            $(
                $(#[$doc])*
                #[doc = concat!("\n\nTold to the peer as [`ReasonCode::", stringify!($reason), "`].")]
                #[error($message)]
                $variant,
            )*
        }

        impl DecodeError {
            /// Every variant, for counters by kind.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// What a 5.0 peer is told, in CONNACK or DISCONNECT.
            pub fn reason(self) -> ReasonCode {
                match self {
                    $(Self::$variant => ReasonCode::$reason,)*
                }
            }

            /// The same for people.
            pub fn message(self) -> &'static str {
                match self {
                    $(Self::$variant => $message,)*
                }
            }
        }
    };
}

decode_errors! {
    // Size and version.
    /// The fixed header announces more than the maximum packet size [MQTT-3.2.2-15].
    PacketTooLarge => PacketTooLarge, "packet is larger than the maximum packet size";
    /// CONNECT with a known protocol name and a level that is not served [MQTT-3.1.2-2].
    UnsupportedProtocolVersion => UnsupportedProtocolVersion, "protocol version is not supported";
    /// CONNECT whose protocol name is neither `MQTT` nor `MQIsdp` [MQTT-3.1.2-1].
    UnknownProtocolName => UnsupportedProtocolVersion, "protocol name is not that of MQTT";

    // Malformed: the bytes cannot be parsed.
    /// A variable byte integer goes on after its fourth byte (section 1.5.5).
    VarintTooLong => MalformedPacket, "variable byte integer is longer than four bytes";
    /// A variable byte integer with needless trailing zero groups [MQTT-1.5.5-1].
    VarintNotMinimal => MalformedPacket, "variable byte integer is not in its shortest form";
    /// Packet type 0, which no version defines (section 2.1.2).
    PacketTypeReserved => MalformedPacket, "packet type 0 is reserved";
    /// Reserved flags of the fixed header are not what the standard lists [MQTT-2.1.3-1].
    HeaderFlagsReserved => MalformedPacket, "reserved flags in the fixed header have the wrong value";
    /// A field reaches past the end of its packet.
    FieldOverrun => MalformedPacket, "a field reaches past the end of the packet";
    /// Bytes are left when every field has been read.
    TrailingBytes => MalformedPacket, "bytes are left after the last field of the packet";
    /// A string is not well-formed UTF-8 [MQTT-1.5.4-1].
    StringNotUtf8 => MalformedPacket, "string is not well-formed UTF-8";
    /// A string holds U+0000 [MQTT-1.5.4-2].
    StringHasNull => MalformedPacket, "string holds U+0000";
    /// A property identifier that the standard does not list (section 2.2.2.2).
    PropertyUnknown => MalformedPacket, "property identifier is unknown";
    /// A property that does not belong to this type of packet (section 2.2.2.2).
    PropertyMisplaced => MalformedPacket, "property does not belong to this packet";
    /// The property length reaches past the end of the packet.
    PropertyLengthOverrun => MalformedPacket, "property length reaches past the end of the packet";
    /// A property's value reaches past the property length.
    PropertyValueOverrun => MalformedPacket, "property value reaches past the property length";
    /// Both `QoS` bits of a PUBLISH are set [MQTT-3.3.1-4].
    PublishQos3 => MalformedPacket, "PUBLISH with QoS 3";
    /// The reserved bit of the connect flags is set [MQTT-3.1.2-3].
    ConnectFlagReserved => MalformedPacket, "reserved connect flag is set";
    /// Will `QoS` 3 [MQTT-3.1.2-12].
    WillQos3 => MalformedPacket, "will with QoS 3";
    /// Will `QoS` or will retain without a will [MQTT-3.1.2-11], [MQTT-3.1.2-13].
    WillFlagsWithoutWill => MalformedPacket, "will QoS or will retain without a will";
    /// Reserved bits of the connect acknowledge flags are set [MQTT-3.2.2-1].
    ConnackFlagsReserved => MalformedPacket, "reserved connect acknowledge flag is set";
    /// Reserved bits of the subscription options are set [MQTT-3.8.3-5].
    SubscribeOptionsReserved => MalformedPacket, "reserved subscription option is set";
    /// A number that is no reason code (section 2.4).
    ReasonCodeUnknown => MalformedPacket, "reason code is unknown";
    /// A v3 CONNACK or SUBACK with a reserved return code [MQTT3-3.9.3-2].
    ReturnCodeUnknown => MalformedPacket, "return code is unknown";

    // Protocol errors: parsed, and not allowed.
    /// AUTH on a v3 connection, where its packet type is reserved.
    AuthBeforeV5 => ProtocolError, "AUTH does not exist before MQTT 5.0";
    /// Packet id zero [MQTT-2.2.1-3].
    PacketIdZero => ProtocolError, "packet identifier is zero";
    /// DUP on a PUBLISH with `QoS` 0 [MQTT-3.3.1-2].
    DupWithQos0 => ProtocolError, "DUP is set on a PUBLISH with QoS 0";
    /// v3: password flag without user name flag [MQTT3-3.1.2-22].
    PasswordWithoutUserName => ProtocolError, "password without user name";
    /// A property that may be there once is there again (section 2.2.2.2).
    PropertyDuplicate => ProtocolError, "property occurs more than once";
    /// A property of one byte that must be 0 or 1 is neither.
    PropertyNotBoolean => ProtocolError, "property is neither 0 nor 1";
    /// Maximum `QoS` is neither 0 nor 1 (section 3.2.2.3.4).
    MaximumQosInvalid => ProtocolError, "maximum QoS is neither 0 nor 1";
    /// Receive maximum 0 (section 3.1.2.11.3).
    ReceiveMaximumZero => ProtocolError, "receive maximum is zero";
    /// Maximum packet size 0 (section 3.1.2.11.4).
    MaximumPacketSizeZero => ProtocolError, "maximum packet size is zero";
    /// Subscription identifier 0 (sections 3.3.2.3.8, 3.8.2.1.2).
    SubscriptionIdZero => ProtocolError, "subscription identifier is zero";
    /// Authentication data without a method (sections 3.1.2.11.10, 3.2.2.3.18).
    AuthenticationDataWithoutMethod => ProtocolError, "authentication data without authentication method";
    /// AUTH that has properties, but no authentication method (section 3.15.2.2.2).
    AuthenticationMethodMissing => ProtocolError, "AUTH without authentication method";
    /// A reason code that this type of packet must not carry, such as [MQTT-3.4.2-1].
    ReasonCodeMisplaced => ProtocolError, "reason code does not belong to this packet";
    /// Session present in a CONNACK that refuses [MQTT-3.2.2-6].
    SessionPresentOnRefusal => ProtocolError, "session present in a CONNACK that refuses the connection";
    /// Neither a topic name nor a topic alias [MQTT-4.7.3-1], section 3.3.2.1.
    TopicEmpty => ProtocolError, "PUBLISH without topic name and without topic alias";
    /// The response topic is empty or has a wildcard [MQTT-3.3.2-14].
    ResponseTopicInvalid => ProtocolError, "response topic is empty or has a wildcard";
    /// SUBSCRIBE without a topic filter [MQTT-3.8.3-2].
    SubscribeEmpty => ProtocolError, "SUBSCRIBE without topic filter";
    /// A subscription asks for `QoS` 3 (section 3.8.3.1; 3.1.1: [MQTT3-3.8.3-4]).
    SubscribeQos3 => ProtocolError, "subscription with QoS 3";
    /// Retain handling 3 (section 3.8.3.1).
    RetainHandling3 => ProtocolError, "subscription with retain handling 3";
    /// No local on a shared subscription [MQTT-3.8.3-4].
    NoLocalOnShared => ProtocolError, "no local on a shared subscription";
    /// UNSUBSCRIBE without a topic filter [MQTT-3.10.3-2].
    UnsubscribeEmpty => ProtocolError, "UNSUBSCRIBE without topic filter";
    /// SUBACK, or UNSUBACK of 5.0, without a reason code: it answers at least one topic filter
    /// [MQTT-3.8.4-6], [MQTT-3.11.3-1].
    SubackEmpty => ProtocolError, "SUBACK or UNSUBACK without reason code";

    // Topics.
    /// A wildcard in the topic name of a PUBLISH [MQTT-3.3.2-2].
    TopicWildcard => TopicNameInvalid, "topic name has a wildcard";
    /// A will topic that is empty [MQTT-4.7.3-1] or has a wildcard [MQTT-3.3.2-2].
    WillTopicInvalid => TopicNameInvalid, "will topic is empty or has a wildcard";
    /// Topic alias 0 [MQTT-3.3.2-8].
    TopicAliasZero => TopicAliasInvalid, "topic alias is zero";
}

impl DecodeError {
    /// The reason as CONNACK can say it [MQTT-3.2.2-8]: a topic alias has no place in CONNECT, of whatever value.
    pub fn connack_reason(self) -> ReasonCode {
        match self.reason() {
            ReasonCode::TopicAliasInvalid => ReasonCode::MalformedPacket,
            reason => reason,
        }
    }

    /// The reason as DISCONNECT can say it [MQTT-3.14.2-1]: there the version belongs to a second CONNECT, which is
    /// refused for being one.
    pub fn disconnect_reason(self) -> ReasonCode {
        match self.reason() {
            ReasonCode::UnsupportedProtocolVersion => ReasonCode::ProtocolError,
            reason => reason,
        }
    }
}
