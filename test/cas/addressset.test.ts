import t from 'tap'
import { addressOf } from '../../src/cas/address.ts'
import { AddressSet } from '../../src/cas/addressset.ts'

t.test('a set of addresses is what a Set is, for each domain', async (t) => {
  const set = new AddressSet()
  const model = new Set<string>()
  for (let i = 0; i < 30_000; i++) {
    const address = addressOf(Buffer.from(`${i % 20_000}`))
    const domain = i % 3
    const key = `${domain}/${address}`
    if (set.has(address, domain) !== model.has(key)) t.fail(`has ${i}`)
    if (set.add(address, domain) === model.has(key)) t.fail(`add ${i}`)
    model.add(key)
  }
  t.equal(set.size, model.size)
  for (let i = 0; i < 25_000; i++) {
    const address = addressOf(Buffer.from(`${i}`))
    for (const domain of [0, 1, 2, 3])
      if (set.has(address, domain) !== model.has(`${domain}/${address}`)) t.fail(`${domain}/${i}`)
  }
})
