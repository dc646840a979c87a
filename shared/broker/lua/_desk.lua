-- The common start of the scripts about one stream at the desk, the slot with everything that is per request.
-- of (hash): the desk's part of a stream, until its end, or as long as its account may count it: `account`, `tokens`
-- (expected), `targets` (providers in order), `sources` (streams that it was made from), `turn`; with limits `reserved`
-- (tokens) and `second` (of the reservation), with budgets `budgets` (see _budgets.lua); `holder` (the worker that holds it) and `until` (when that ends), `left`
-- (the last holder that left it), `again` (1: it was lost and counted again); see _provider_limit.lua for its lanes. A
-- stream that was refused has only `refused`, the reply of `admit`, for a minute; so has one that was settled and might
-- be counted again. One for which a gateway makes room before it repeats `admit` has only `undecided`, for a minute.

local OF, ID = KEYS[1], ARGV[1]
-- arq's id of the stream's job, the member of the queue.
local JOB_ID = string.match(OF, '{.-}') .. ID
