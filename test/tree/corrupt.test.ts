/** Damaged nodes: an error that names them, never a crash, a hang or a read out of bounds. */
import t from 'tap'
import { type Address, addressOf } from '../../src/cas/address.ts'
import { NexusError } from '../../src/errors.ts'
import { NodeBuilder } from '../../src/tree/builder.ts'
import { Node } from '../../src/tree/node.ts'
import { Tree } from '../../src/tree/tree.ts'
import { bytesOf, edit, MemoryStore, numberedEdits, numberedKey, smallShape } from './support.ts'

const options = { cacheBytesMax: 1 << 20, shape: smallShape }
const sound = new MemoryStore()
const root = new Tree(sound, options).editNow(null, numberedEdits(60)) as Address
const leaf = [...sound.nodes.keys()][0] as Address

/** A store in which one node has other bytes. */
function storeWith(address: Address, bytes: Buffer): MemoryStore {
  const store = new MemoryStore()
  for (const [each, original] of sound.nodes) store.nodes.set(each, each === address ? bytes : original)
  return store
}

/** Every way to read a tree; returns the code of the first error. */
function readAll(store: MemoryStore): string | undefined {
  const tree = new Tree(store, options)
  const readers = [
    () => [...tree.scan(root, Buffer.alloc(0))],
    () => [...tree.diff(root, null)],
    () => [
      ...tree.walk(
        root,
        () => false,
        () => undefined,
      ),
    ],
    () => tree.get(root, numberedKey(3)),
    () => tree.editNow(root, [{ key: numberedKey(3), value: null }]),
    () => tree.verify(root),
  ]
  return readers.map(codeOf).find((code) => code !== undefined)
}

function codeOf(read: () => unknown): string | undefined {
  try {
    read()
    return undefined
  } catch (error) {
    if (error instanceof NexusError) return error.code
    throw error
  }
}

t.equal(readAll(sound), undefined)

for (const [name, address] of Object.entries({ leaf, root })) {
  const original = sound.nodes.get(address) as Buffer

  t.test(`a ${name} with any one byte flipped`, async (t) => {
    for (let at = 0; at < original.length; at++) {
      for (const flip of [0x01, 0x80, 0xff]) {
        const bytes = Buffer.from(original)
        bytes[at] = (bytes[at] as number) ^ flip
        const code = readAll(storeWith(address, bytes))
        const isFine = code === undefined || code === 'NEXUS_CORRUPT' || (at === 2 && code === 'NEXUS_TOO_NEW')
        if (!isFine) t.fail(`byte ${at}: ${code}`)
        if (at < 8 && code === undefined) t.fail(`header byte ${at} is not checked`)
      }
    }
  })

  t.test(`a ${name} cut off anywhere, or with more at its end`, async (t) => {
    for (let length = 0; length < original.length; length++) {
      const code = readAll(storeWith(address, original.subarray(0, length)))
      if (code !== 'NEXUS_CORRUPT') t.fail(`cut to ${length}: ${code}`)
    }
    t.equal(readAll(storeWith(address, Buffer.concat([original, Buffer.alloc(20)]))), 'NEXUS_CORRUPT')
  })
}

t.test('a node is named by its address', async (t) => {
  const tree = new Tree(storeWith(root, Buffer.from('not a node at all')), options)
  const message = new RegExp(Buffer.from(root, 'latin1').toString('hex'))
  t.throws(() => tree.get(root, numberedKey(0)), { code: 'NEXUS_CORRUPT', message })
})

t.test('an inner node in the place of a leaf does not lead in a circle', async (t) => {
  t.equal(readAll(storeWith(leaf, sound.nodes.get(root) as Buffer)), 'NEXUS_CORRUPT')
})

/** Puts nodes as given, without regard to where they should end. */
function buildNode(store: MemoryStore, level: number, entries: [string, string][]): Address {
  const builder = new NodeBuilder(smallShape)
  builder.startLevel(level)
  for (const [key, value] of entries) builder.add(bytesOf(key), bytesOf(value))
  return store.put(builder.finish())
}

t.test('verify finds trees that are sound but not those of their content', async (t) => {
  const store = new MemoryStore()
  const tree = new Tree(store, options)
  const verify = (address: Address) => codeOf(() => tree.verify(address))
  const [a, b] = [buildNode(store, 0, [['a', '1']]), buildNode(store, 0, [['b', '1']])]
  t.equal(verify(buildNode(store, 1, [['a', a]])), 'NEXUS_CORRUPT', 'a root with one child')
  t.equal(
    verify(
      buildNode(store, 1, [
        ['a', a],
        ['b', b],
      ]),
    ),
    'NEXUS_CORRUPT',
    'a leaf that ends too early',
  )
  const long = Array.from({ length: 99 }, (_, n): [string, string] => [`k${n + 100}`, '1'])
  t.equal(verify(buildNode(store, 0, long)), 'NEXUS_CORRUPT', 'a leaf that should end earlier')
  const big = buildNode(store, 0, [['a', 'x'.repeat(500)]])
  t.equal(
    verify(
      buildNode(store, 1, [
        ['0', big],
        ['b', b],
      ]),
    ),
    'NEXUS_CORRUPT',
    'a wrong separator',
  )
  t.equal(
    verify(
      buildNode(store, 1, [
        ['a', big],
        ['b', b],
      ]),
    ),
    undefined,
    'a large value alone',
  )
})

t.test('verify compares neighbours', async (t) => {
  const store = new MemoryStore()
  const tree = new Tree(store, options)
  const left = buildNode(store, 0, [
    ['a', '1'],
    ['c', 'x'.repeat(200)],
  ])
  const right = buildNode(store, 0, [['b', 'x'.repeat(200)]])
  const top = buildNode(store, 1, [
    ['a', left],
    ['b', right],
  ])
  t.throws(() => tree.verify(top), { message: /left neighbour/ })
})

t.test('the format is what it is documented to be', async (t) => {
  const store = new MemoryStore()
  const address = new Tree(store, options).editNow(null, [edit('k', 'value'), edit('key', '')]) as Address
  const hex = '6e74 01 00 02000000 18000000 1d000000 0100 6b 76616c7565 0300 6b6579'.replaceAll(' ', '')
  t.equal(store.nodes.get(address)?.toString('hex'), hex)
  t.equal(address, addressOf(Buffer.from(hex, 'hex')))
  const node = new Node(address, Buffer.from(hex, 'hex'))
  t.same([node.key(1), node.value(0)], [bytesOf('key'), bytesOf('value')])
})
