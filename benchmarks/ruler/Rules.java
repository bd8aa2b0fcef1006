import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import software.amazon.event.ruler.Machine;

/** Rules and events, a JSON text a line, through aws event-ruler: a line of figures as JSON. */
public class Rules {
    public static void main(String[] args) throws Exception {
        List<String> rules = Files.readAllLines(Path.of(args[0]), StandardCharsets.UTF_8);
        List<String> events = Files.readAllLines(Path.of(args[1]), StandardCharsets.UTF_8);
        double seconds = Double.parseDouble(args[2]);
        List<String> more = Files.readAllLines(Path.of(args[3]), StandardCharsets.UTF_8);
        double before = held();
        Machine machine = new Machine();
        long began = System.nanoTime();
        for (int n = 0; n < rules.size(); n++) {
            machine.addRule("r" + n, rules.get(n));
        }
        double build = (System.nanoTime() - began) / 1e9;
        double held = held() - before;
        long hits = 0;
        double best = Double.MAX_VALUE;
        began = System.nanoTime();
        while (best == Double.MAX_VALUE || (System.nanoTime() - began) / 1e9 < seconds) {
            hits = 0;
            long pass = System.nanoTime();
            for (String event : events) {
                hits += machine.rulesForJSONEvent(event).size();
            }
            best = Math.min(best, (System.nanoTime() - pass) / 1e9 / events.size());
        }
        double[] taken = new double[more.size()];
        for (int n = 0; n < taken.length; n++) {
            began = System.nanoTime();
            machine.addRule("more " + n, more.get(n));
            taken[n] = (System.nanoTime() - began) / 1e6;
        }
        Arrays.sort(taken);
        System.out.printf(
            "{\"events/s\": %f, \"build s\": %f, \"one more p50 ms\": %f, \"one more p99 ms\": %f,"
                + " \"MB\": %f, \"hits\": %d}%n",
            1 / best, build, taken[taken.length / 2], taken[taken.length * 99 / 100], held, hits);
    }

    /** MB of heap in use once what is not has been collected. */
    private static double held() throws InterruptedException {
        for (int n = 0; n < 3; n++) {
            System.gc();
            Thread.sleep(50);
        }
        Runtime runtime = Runtime.getRuntime();
        return (runtime.totalMemory() - runtime.freeMemory()) / 1048576.0;
    }
}
