/** What is derived from the table of calls says what the calls take and answer. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Ajv2020 } from 'ajv/dist/2020.js'
import t from 'tap'
import { type Call, decode, encode } from '../../src/api/call.ts'
import { callNames, callOf, checkAnswer } from '../../src/api/calls.ts'
import { openApi } from '../../src/api/openapi.ts'
import { withTables } from '../../src/api/pages.ts'
import { packageRoot } from '../../src/host/version.ts'
import { answers } from '../service/fake-service.ts'

/** A value that each parameter takes, by its name, and some that none of them takes. */
const taken: Record<string, unknown> = {
  path: '/workspace/acme',
  newPath: '/workspace/trial',
  snapshot: 'before',
  from: 'before',
  to: null,
  limit: 10,
  subject: 'alice',
  uid: 1000,
  relation: 'editor',
  permission: 'read',
  group: 'eng',
  member: 'agent:coder-7',
  text: 'model\n  schema 1.1\ntype user\n',
  id: 'acme',
  name: 'before',
  metadata: { team: 'red' },
  owner: 'bob',
  quotaBytes: 0,
  quotaInodes: 5,
  dryRun: true,
  force: false,
  stop: false,
  withGrants: true,
  expires: '2999-01-31T18:00Z',
  admin: 'alice',
  directories: ['data'],
  bytes: null,
  inodes: 7,
  rate: 1,
  snapshotDir: '.history',
}

/** What the document says must be there, of which kind, and nothing else. */
interface Body {
  properties: Record<string, object>
  required: string[]
}

function bodyOf(name: string): Body | undefined {
  const post = openApi('1').paths[`/v1/${name}`]?.post as { requestBody?: { content: Record<string, { schema: Body }> } }
  return post.requestBody?.content['application/json']?.schema
}

function bodyFor({ params, options = {} }: Call): Record<string, unknown> {
  const names = [...params.map(({ name }) => name), ...Object.keys(options)]
  return Object.fromEntries(names.map((name) => [name, taken[name]]))
}

t.test('docs/cli-abi.md has the tables of the calls: run "npm run docs" after a change', async (t) => {
  const page = readFileSync(join(packageRoot(), 'docs/cli-abi.md'), 'utf8')
  t.equal(withTables(page), page)
})

t.test('the OpenAPI document and the calls take and answer alike', async (t) => {
  const document = openApi('1')
  const ajv = new Ajv2020({ strict: false, validateFormats: false })
  ajv.addSchema(document, 'openapi')
  for (const name of callNames) {
    const call = callOf(name)
    const at = (part: string): string => `openapi#/paths/~1v1~1${name}/post/${part}`
    const isAnswer = ajv.compile({ $ref: at('responses/200/content/application~1json/schema') })
    t.ok(isAnswer(answers[name]), `${name} answers so`, { errors: isAnswer.errors })
    t.doesNotThrow(() => checkAnswer(name, answers[name]), name)
    t.notOk(isAnswer('x'), `${name} answers no text`)

    const body = bodyFor(call)
    const args = decode(name, call, body)
    t.strictSame(decode(name, call, encode(call, args)), args, `${name}: arguments travel`)
    const schema = bodyOf(name)
    if (schema === undefined) {
      t.same(body, {}, `${name} takes nothing`)
      continue
    }
    const isBody = ajv.compile({ $ref: at('requestBody/content/application~1json/schema') })
    t.ok(isBody(body), `${name} takes so`, { errors: isBody.errors })
    t.notOk(isBody({ ...body, nmae: 1 }), `${name} takes nothing else`)
    for (const field of Object.keys(schema.properties)) {
      const { [field]: _, ...without } = body
      const isNeeded = schema.required.includes(field)
      t.equal(isBody(without), !isNeeded)
      if (isNeeded) t.throws(() => decode(name, call, without), { code: 'NEXUS_USAGE', message: new RegExp(field) })
      else t.doesNotThrow(() => decode(name, call, without), `${name} without ${field}`)
      for (const wrong of [{ a: { b: [] } }, [7]]) {
        t.notOk(isBody({ ...body, [field]: wrong }), `${name}: ${field} of another kind`)
        t.throws(() => decode(name, call, { ...body, [field]: wrong }), { code: 'NEXUS_USAGE' })
      }
    }
  }
})

t.test('every reference leads to something', async (t) => {
  const document = openApi('1')
  const text = JSON.stringify(document)
  const names = [...text.matchAll(/"#\/components\/schemas\/([^"]+)"/g)].map(([, name]) => name as string)
  t.ok(names.length > 40)
  t.same(
    [...new Set(names)].filter((name) => document.components.schemas[name] === undefined),
    [],
  )
})
