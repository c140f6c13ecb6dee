/** Models: what is read, what is refused and with which words, and which tuples a model permits. */
import { readFileSync } from 'node:fs'
import t from 'tap'
import { allowsTuple, builtinModel, checkFilesystemModel, modelFromJson, parsedBuiltin, parseModel } from '../../src/acl/model.ts'
import { NexusError } from '../../src/errors.ts'

const head = 'model\n  schema 1.1\ntype user\n'

function refusal(run: () => unknown): string {
  try {
    run()
  } catch (error) {
    if (error instanceof NexusError && error.code === 'NEXUS_USAGE') return error.message
    throw error
  }
  throw new Error('nothing was refused')
}

t.test('every kind of rewrite is read', async (t) => {
  const model = parseModel(`${head}
type group
  relations
    define member: [user, user:*, group#member]
type doc
  relations
    define parent: [doc]
    define banned: [user]
    define a: [user]
    define b: a
    define c: a or (b and a from parent)
    define d: a but not banned
`)
  const doc = model.types.get('doc')
  t.same(model.types.get('group')?.get('member'), {
    rewrite: { kind: 'this' },
    subjects: [{ type: 'user' }, { type: 'user', wildcard: true }, { type: 'group', relation: 'member' }],
  })
  t.same(doc?.get('b'), { rewrite: { kind: 'computed', relation: 'a' }, subjects: [] })
  t.same(doc?.get('c')?.rewrite, {
    kind: 'union',
    children: [
      { kind: 'computed', relation: 'a' },
      {
        kind: 'intersection',
        children: [
          { kind: 'computed', relation: 'b' },
          { kind: 'from', tupleset: 'parent', computed: 'a' },
        ],
      },
    ],
  })
  t.same(doc?.get('d')?.rewrite, {
    kind: 'difference',
    base: { kind: 'computed', relation: 'a' },
    subtract: { kind: 'computed', relation: 'banned' },
  })
})

t.test('a bad model is refused with its line', async (t) => {
  const bad: [name: string, text: string, message: RegExp][] = [
    ['nothing', '', /^line 1 of the model: .*expecting.*; correct it and try again$/],
    ['no model', 'modle\n  schema 1.1\n', /^line 1 of the model: .*'modle'/],
    ['no syntax', `${head}type doc\n relations\n  define\n`, /^line 6 of the model: /],
    ['unknown type', `${head}type doc\n relations\n  define a: [nobody]\n`, /^line 6 of the model: `nobody` is not a valid type/],
    ['unknown relation', `${head}type doc\n relations\n  define a: b\n`, /^line 6 of the model: the relation `b` does not exist/],
    ['no way in', `${head}type doc\n relations\n  define a: a\n`, /^line 6 of the model: `a` is an impossible relation/],
    [
      'a computed tupleset',
      `${head}type doc\n relations\n  define up: [doc]\n  define over: up\n  define a: [user] or a from over\n`,
      /^line 8 of the model: .*`over`/,
    ],
    ['another schema', 'model\n  schema 1.0\ntype user\n', /^(line 2 of )?the model.*(1\.0|schema)/],
    [
      'a condition',
      `${head}type doc\n relations\n  define a: [user with night]\ncondition night(hour: int) {\n  hour > 20\n}\n`,
      /^line 6 of the model: conditions are not supported/,
    ],
    [
      'an unused condition',
      `${head}condition night(hour: int) {\n  hour > 20\n}\n`,
      /^line 4 of the model: conditions are not supported/,
    ],
  ]
  for (const [name, text, message] of bad)
    t.match(
      refusal(() => parseModel(text)),
      message,
      name,
    )
  t.match(
    refusal(() => modelFromJson({ schema_version: '1.1', conditions: { night: {} } })),
    /conditions are not supported/,
  )
  t.match(
    refusal(() => modelFromJson({ schema_version: '1.1', type_definitions: [{ type: 'doc', relations: { a: {} } }] })),
    /relation a of doc is defined by something unknown/,
  )
})

t.test('a model permits the tuples of its type restrictions and no others', async (t) => {
  const model = builtinModel()
  const permitted: [string, string, string][] = [
    ['user:alice', 'owner', 'dir:7/12'],
    ['user:*', 'viewer', 'file:7/40'],
    ['agent:*', 'viewer', 'file:7/40'],
    ['agent:build', 'editor', 'workspace:main'],
    ['group:eng#member', 'editor', 'dir:7/12'],
    ['tenant:acme#member', 'viewer', 'dir:7/12'],
    ['group:eng#member', 'member', 'group:all'],
    ['dir:7/12', 'parent', 'file:7/40'],
  ]
  for (const [subject, relation, object] of permitted) {
    t.equal(allowsTuple(model, { subject, relation, object }), undefined, `${subject} ${relation} ${object}`)
  }
  const refused: [string, string, string, RegExp][] = [
    ['user:alice', 'owner', 'disk:1', /type 'disk' is not in the model/],
    ['robot:1', 'owner', 'dir:1', /type 'robot' is not in the model/],
    ['user:alice', 'eater', 'dir:1', /relation 'eater' is not defined for type 'dir'/],
    ['group:eng#boss', 'owner', 'dir:1', /relation 'boss' is not defined for type 'group'/],
    ['user:alice', 'write', 'dir:1', /'user' cannot be given 'write' of 'dir': it follows from other relations/],
    ['group:eng', 'owner', 'dir:1', /'group' cannot be given 'owner' of 'dir': it can be given to user, user:\*/],
    ['group:*', 'owner', 'dir:1', /'group:\*' cannot be given/],
    ['user:*', 'member', 'group:eng', /'user:\*' cannot be given 'member'/],
    ['dir:1#owner', 'viewer', 'dir:2', /'dir#owner' cannot be given/],
    ['file:1', 'parent', 'dir:1', /'file' cannot be given 'parent'/],
    ['dir:*', 'parent', 'dir:1', /must be one object/],
    ['dir:1#owner', 'parent', 'dir:1', /must be one object/],
    ['group:*#member', 'owner', 'dir:1', /both all of a type and a set/],
    ['user:alice', 'owner', 'dir:*', /stands for all of a type/],
    ['user:alice', 'owner', 'dir', /not an object/],
    ['alice', 'owner', 'dir:1', /not a subject/],
    ['user:a b', 'owner', 'dir:1', /not a subject/],
    ['a:b:c', 'owner', 'dir:1', /not a subject/],
  ]
  for (const [subject, relation, object, why] of refused) {
    t.match(allowsTuple(model, { subject, relation, object }) ?? '', why, `${subject} ${relation} ${object}`)
  }
})

t.test('the filesystem needs certain types and relations, and says which are missing', async (t) => {
  const text = builtinModel().text
  checkFilesystemModel(parseModel(text))
  t.match(
    refusal(() => checkFilesystemModel(parseModel(head))),
    /lacks type agent, type group, type dir, type file, type workspace, type tenant;/,
  )
  const without = (pattern: RegExp) => refusal(() => checkFilesystemModel(parseModel(text.replace(pattern, ''))))
  t.match(without(/^ *define snapshot: .*\n/m), /lacks relation snapshot of dir;/)
  t.match(without(/^ *define member: viewer\n|, tenant#member/gm), /lacks relation member of tenant;/)
  const narrow = text.replace('define parent: [dir, workspace, tenant]', 'define parent: [dir, workspace]')
  t.match(
    refusal(() => checkFilesystemModel(parseModel(narrow))),
    /lacks tenant among those that may be parent of dir;/,
  )
})

t.test('the model that was parsed when nexus was built is the one of the text', async (t) => {
  const built = JSON.parse(readFileSync(new URL('../../src/acl/builtin.json', import.meta.url), 'utf8')) as { text: string }
  t.equal(built.text, builtinModel().text, 'of this very text')
  t.same(builtinModel(), parseModel(builtinModel().text))
  t.equal(parsedBuiltin().content, JSON.stringify(built))
})
