"""What things cost: pure. Nothing here talks to a network, a database or the environment.

    cost of a task     = model spend + compute + orchestration
    model spend        = for each call and kind of token: tokens x price per million / 1,000,000
    compute            = active seconds x rate             (a durable wait is not active and costs nothing)
    orchestration      = persisted writes x price of a write + bytes x months kept x price + log bytes x price

Every quantity says how it is known, every charge names its price and the digest of its price book; amounts are
exact decimals that are rounded where they are shown, and nowhere else. `docs/cost-model.md` has the rules.

    price_file    reads config/prices.yaml          list_prices   what providers publish (genai-prices)
    book          which price applies               formula       what a call and a step's work cost
    check         mistakes in a book                show          prices for a reader
    charge_kinds  kinds, meters, units, how known   charge_types  usage, work, charges
    call_record   a row of the journal              lost          what a call that came to nothing may have used
"""
