// MQTT.js as a device: one scenario against a broker that runs already.
//
//     mqttjs_device.cjs SCENARIO --version 4|5 --transport tcp|tls|ws|wss --port PORT [--ca FILE]
//
// Ends with status 0 if every step was as it has to be; else says which was not. Nothing waits without a limit.

const assert = require('node:assert/strict')
const fs = require('node:fs')
const { parseArgs } = require('node:util')
const mqtt = require('mqtt')

const LIMIT_MS = 20_000
const LARGE = Buffer.alloc(10 << 20, Uint8Array.from({ length: 251 }, (_, n) => n))

const { values: args, positionals: [scenario] } = parseArgs({
  allowPositionals: true,
  options: { version: { type: 'string' }, transport: { type: 'string' }, port: { type: 'string' }, ca: { type: 'string' } },
})
const version = Number(args.version)

// A client whose messages wait in a list, so that a scenario reads from top to bottom.
class Device {
  static async connect (clientId, { persistent = false, will, sessionPresent = false } = {}) {
    const device = new Device()
    const { transport, port, ca } = args
    const scheme = { tcp: 'mqtt', tls: 'mqtts' }[transport] ?? transport
    device.client = mqtt.connect(`${scheme}://localhost:${port}${scheme.startsWith('ws') ? '/mqtt' : ''}`, {
      clientId,
      protocolVersion: version,
      clean: !persistent,
      properties: version === 5 ? { sessionExpiryInterval: persistent ? 3600 : 0 } : undefined,
      ca: ca && fs.readFileSync(ca),
      reconnectPeriod: 0,
      resubscribe: false,
      will,
    })
    device.messages = []
    device.waiting = []
    // Before CONNACK: what waited may follow it at once.
    device.client.on('message', (topic, payload, packet) => {
      const message = { topic, payload, qos: packet.qos, retain: packet.retain }
      const next = device.waiting.shift()
      if (next) next(message)
      else device.messages.push(message)
    })
    const connack = await within('CONNACK', new Promise((resolve, reject) => {
      device.client.on('connect', resolve)
      device.client.on('error', reject)
    }))
    assert.equal(connack.sessionPresent, sessionPresent, 'session present')
    return device
  }

  async subscribe (filter, qos) {
    const granted = await within('SUBACK', this.client.subscribeAsync(filter, { qos }))
    assert.deepEqual(granted.map((g) => g.qos), [qos], `what was granted for ${filter}`)
  }

  unsubscribe (filter) {
    return within('UNSUBACK', this.client.unsubscribeAsync(filter))
  }

  publish (topic, payload, qos = 0, retain = false) {
    return within(`${topic} to be taken`, this.client.publishAsync(topic, payload, { qos, retain }))
  }

  next () {
    if (this.messages.length) return this.messages.shift()
    return within('a message', new Promise((resolve) => this.waiting.push(resolve)))
  }

  async expect (topic, payload, qos = 0, retain = false) {
    const message = await this.next()
    const seen = { topic: message.topic, qos: message.qos, retain: message.retain, bytes: message.payload.length }
    assert.deepEqual(seen, { topic, qos, retain, bytes: Buffer.byteLength(payload) })
    assert.ok(message.payload.equals(Buffer.from(payload)), `the payload of ${topic}`)
  }

  leave () {
    return within('the end of the connection', this.client.endAsync())
  }

  // Closes the connection without a DISCONNECT.
  async beLost () {
    const closed = new Promise((resolve) => this.client.on('close', resolve))
    this.client.stream.destroy()
    await within('the connection to be lost', closed)
  }
}

async function within (what, promise) {
  let timer
  const limit = new Promise((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${LIMIT_MS} ms for ${what}`)), LIMIT_MS)
  })
  try {
    return await Promise.race([promise, limit])
  } finally {
    clearTimeout(timer)
  }
}

const scenarios = {
  async wildcards () {
    const sub = await Device.connect('sub')
    const pub = await Device.connect('pub')
    await sub.subscribe('site/+/temp', 2)
    await sub.subscribe('alarm/#', 1)
    for (const qos of [0, 1, 2]) {
      await pub.publish('site/a/wind', 'not asked for', qos)
      await pub.publish('site/a/temp', '21', qos)
      await sub.expect('site/a/temp', '21', qos)
      await pub.publish('alarm', 'fire', qos)
      await sub.expect('alarm', 'fire', Math.min(qos, 1))
    }
    await sub.unsubscribe('alarm/#')
    await pub.publish('alarm', 'unheard', 1)
    await pub.publish('site/ü/temp', 'end', 1)
    await sub.expect('site/ü/temp', 'end', 1)
    await sub.leave()
    await pub.leave()
  },

  async retained () {
    const pub = await Device.connect('pub')
    for (const qos of [0, 1, 2]) await pub.publish(`state/${qos}`, 'on', qos, true)
    await pub.publish('state/1', '', 1, true)
    const newcomer = await Device.connect('newcomer')
    await newcomer.subscribe('state/#', 2)
    const got = [await newcomer.next(), await newcomer.next()].map((m) => [m.topic, m.qos, m.retain]).sort()
    assert.deepEqual(got, [['state/0', 0, true], ['state/2', 2, true]])
    await pub.publish('state/2', 'live', 1)
    await newcomer.expect('state/2', 'live', 1)
    for (const qos of [0, 2]) await pub.publish(`state/${qos}`, '', 1, true)
    await pub.leave()
    await newcomer.leave()
  },

  async will () {
    const watcher = await Device.connect('watcher')
    await watcher.subscribe('gone/#', 1)
    const will = (topic) => ({ topic, payload: Buffer.from('lost'), qos: 1, retain: false })
    await (await Device.connect('leaves', { will: will('gone/leaves') })).leave()
    await (await Device.connect('is-lost', { will: will('gone/is-lost') })).beLost()
    await watcher.expect('gone/is-lost', 'lost', 1)
    await watcher.leave()
  },

  async offline () {
    const before = await Device.connect('sleeper', { persistent: true })
    await before.subscribe('cmd/sleeper', 2)
    await before.leave()
    const pub = await Device.connect('pub')
    for (let n = 0; n < 200; n++) await pub.publish('cmd/sleeper', `${n}`, 1 + n % 2)
    const sleeper = await Device.connect('sleeper', { persistent: true, sessionPresent: true })
    // MQTT.js hands a QoS 2 message on when it is released, so QoS 1 may overtake it: each quality is in order.
    const got = { 1: [], 2: [] }
    for (let n = 0; n < 200; n++) {
      const message = await sleeper.next()
      got[message.qos].push(Number(message.payload))
    }
    const every = (first) => Array.from({ length: 100 }, (_, n) => first + 2 * n)
    assert.deepEqual(got, { 1: every(0), 2: every(1) }, 'what waited, by QoS')
    await sleeper.leave()
    // A clean start ends the session.
    await (await Device.connect('sleeper')).leave()
    await pub.leave()
  },

  async large () {
    const sub = await Device.connect('sub')
    const pub = await Device.connect('pub')
    for (const qos of [1, 2]) {
      await sub.subscribe('firmware', qos)
      await pub.publish('firmware', LARGE, qos)
      await sub.expect('firmware', LARGE, qos)
    }
    await sub.leave()
    await pub.leave()
  },

  async shared () {
    const workers = await Promise.all([0, 1, 2].map((n) => Device.connect(`worker-${n}`)))
    for (const worker of workers) {
      await worker.subscribe('$share/workers/job/#', 1)
      await worker.subscribe('end', 1)
    }
    const pub = await Device.connect('pub')
    for (let n = 0; n < 30; n++) await pub.publish('job/one', `${n}`, 1)
    await pub.publish('end', '', 1)
    const got = []
    for (const worker of workers) {
      const payloads = []
      for (let m = await worker.next(); m.topic !== 'end'; m = await worker.next()) payloads.push(Number(m.payload))
      got.push(payloads)
      await worker.leave()
    }
    assert.deepEqual(got.flat().sort((a, b) => a - b), Array.from({ length: 30 }, (_, n) => n))
    assert.ok(got.every((g) => g.length > 0), `each got something: ${JSON.stringify(got)}`)
    await pub.leave()
  },
}

scenarios[scenario]().then(() => process.exit(0), (error) => {
  console.error(error)
  process.exit(1)
})
